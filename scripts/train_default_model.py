"""Build, judge and rebuild the data of Penstock's embedded default model.

The model is a small Llama trained on the standard library of the Python that runs this program;
nothing is downloaded. From the repository's root:

  python -m scripts.train_default_model --run-dir /tmp/run
      trains, and writes the model folder src/penstock/default_model

  python -m scripts.train_default_model --run-dir /tmp/run --resume
      continues after an interruption; lower --steps, --decay-from to finish early

  python -m scripts.train_default_model --evaluate MODEL_DIR
      prints the held-out perplexity of any Llama folder with this tokenizer

  python -m scripts.train_default_model --write-held-out FILE
      writes the held-out texts, one JSON object {"name", "text"} a line

The same interpreter version, seed and steps give the same data in the same order. Bitwise equal
weights are promised only for the same machine, torch version and thread count.
"""

import argparse
import json
import math
import platform
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from tokenizers import Tokenizer

from scripts.default_model.corpus import Corpus, load_corpus
from scripts.default_model.data import training_streams
from scripts.default_model.evaluate import Score, evaluate, load_model
from scripts.default_model.export import export
from scripts.default_model.llama import Shape
from scripts.default_model.tokenizer import train_tokenizer
from scripts.default_model.train import Plan, Report, Trainer

MODEL_DIR = Path("src/penstock/default_model")
LOG_EVERY = 20


def main() -> None:
    """Do what the command line asks."""
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    console = Console(width=None if sys.stdout.isatty() else 100)
    corpus = load_corpus()
    describe(corpus, console)
    if options.write_held_out:
        write_held_out(corpus, options.write_held_out)
    elif options.evaluate:
        model, tokenizer = load_model(options.evaluate)
        console.print(score_table(evaluate(model, tokenizer, corpus)))
    else:
        train(options, corpus, console)


def parse_arguments() -> argparse.Namespace:
    """The command line; each field of the plan is an option of its own."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.train_default_model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run-dir", type=Path, help="where tokenizer and checkpoints are kept")
    parser.add_argument("--output", type=Path, default=MODEL_DIR, help=f"default: {MODEL_DIR}")
    parser.add_argument("--resume", action="store_true", help="continue the run in --run-dir")
    parser.add_argument("--compile", action="store_true", help="torch.compile: faster, needs g++")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads; default: 2")
    parser.add_argument("--evaluate", type=Path, metavar="MODEL_DIR", help="only evaluate")
    parser.add_argument("--write-held-out", type=Path, metavar="FILE", help="only write texts")
    plan = parser.add_argument_group("the plan of the run")
    for each in fields(Plan):
        option = f"--{each.name.replace('_', '-')}"
        plan.add_argument(
            option, type=type(each.default), default=each.default, help=f"default: {each.default}"
        )
    options = parser.parse_args()
    if not (options.run_dir or options.evaluate or options.write_held_out):
        parser.error("training needs --run-dir, a folder for its checkpoints")
    return options


def describe(corpus: Corpus, console: Console) -> None:
    """Say which text this is."""
    for name, documents in corpus._asdict().items():
        num_bytes = sum(len(document.text.encode()) for document in documents)
        console.print(f"{name}: {len(documents)} documents, {num_bytes:,} bytes", highlight=False)
    console.print(f"Python {platform.python_version()}, corpus SHA-256 {corpus.fingerprint}")


def write_held_out(corpus: Corpus, path: Path) -> None:
    """One JSON object a line, in the order in which evaluation reads them."""
    lines = (json.dumps(document._asdict()) + "\n" for document in corpus.held_out)
    path.write_text("".join(lines), encoding="utf-8")


def train(options: argparse.Namespace, corpus: Corpus, console: Console) -> None:
    """Train, export, and evaluate what was exported."""
    shape = Shape()
    options.run_dir.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer_of(options.run_dir / "tokenizer.json", corpus, shape)
    plan = Plan(**{each.name: getattr(options, each.name) for each in fields(Plan)})
    trainer = Trainer(
        plan=plan,
        shape=shape,
        streams=training_streams(corpus, tokenizer, plan.seed),
        checkpoint=options.run_dir / "checkpoint.pt",
        threads=options.threads,
        compiled=options.compile,
    )
    if options.resume:
        trainer.resume()
    console.print(f"one epoch: {trainer.streams.num_tokens:,} tokens", highlight=False)
    with progress_bar(console) as progress:
        trainer.run(reporter(progress, plan, trainer.progress.step))
    export(trainer.model, shape, tokenizer, options.output)
    model, tokenizer = load_model(options.output)
    console.print(closing_table(trainer))
    console.print(score_table(evaluate(model, tokenizer, corpus)))


def tokenizer_of(path: Path, corpus: Corpus, shape: Shape) -> Tokenizer:
    """The run's tokenizer, trained when the run starts."""
    if not path.exists():
        texts = (document.text for document in corpus.training)
        train_tokenizer(texts, vocab_size=shape.vocab_size).save(str(path))
    return Tokenizer.from_file(str(path))


def progress_bar(console: Console) -> Progress:
    """Step, loss, speed, and how long it takes; plain lines when nobody watches a terminal."""
    return Progress(
        *Progress.get_default_columns()[:2],
        TextColumn("step {task.completed}/{task.total}  loss {task.fields[loss]:.3f}"),
        TextColumn("{task.fields[tokens_per_s]:,.0f} tokens/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def reporter(progress: Progress, plan: Plan, start: int) -> Callable[[Report], None]:
    """Feeds the bar, or prints a line now and then, with the loss averaged over recent steps."""
    task = progress.add_task(
        "training", total=plan.steps, completed=start, loss=math.nan, tokens_per_s=0.0
    )
    recent: list[Report] = []

    def on_step(report: Report) -> None:
        recent.append(report)
        del recent[:-LOG_EVERY]
        loss = sum(each.loss for each in recent) / len(recent)
        speed = len(recent) / sum(1 / each.tokens_per_s for each in recent)
        progress.update(task, completed=report.step, loss=loss, tokens_per_s=speed)
        if progress.disable and report.step % LOG_EVERY == 0:
            eta_min = (plan.steps - report.step) * plan.tokens_per_step / speed / 60
            progress.console.print(
                f"step {report.step}/{plan.steps}  loss {loss:.3f}  {speed:,.0f} tokens/s  "
                f"about {eta_min:.0f} min left",
                highlight=False,
            )

    return on_step


def closing_table(trainer: Trainer) -> Table:
    """The run in numbers."""
    table = Table("run", "", title="training")
    progress = trainer.progress
    num_parameters = sum(p.numel() for p in trainer.model.parameters())
    table.add_row("parameters", f"{num_parameters:,}")
    table.add_row("steps", f"{progress.step:,}")
    table.add_row("tokens seen", f"{progress.num_tokens:,}")
    table.add_row("epochs", f"{progress.num_tokens / trainer.streams.num_tokens:.2f}")
    table.add_row("wall time", f"{progress.seconds / 60:.0f} min")
    return table


def score_table(scores: list[Score]) -> Table:
    """Held-out quality at each row length."""
    table = Table("row length", "tokens", "perplexity per token", title="held-out text")
    table.add_column("perplexity per byte")
    table.add_column("bits per byte")
    for each in scores:
        table.add_row(
            f"{each.row_len}",
            f"{each.num_tokens:,}",
            f"{each.perplexity:.3f}",
            f"{each.byte_perplexity:.4f}",
            f"{each.bits_per_byte:.4f}",
        )
    return table


if __name__ == "__main__":
    main()
