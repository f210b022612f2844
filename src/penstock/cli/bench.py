"""`penstock bench`: how fast an engine or a server is."""

import asyncio
import dataclasses
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer
import uvloop
from rich.console import Console

from penstock.bench.settings import (
    LatencySettings,
    LoadSettings,
    PlotSettings,
    ReportSettings,
    TargetSettings,
    ThroughputSettings,
    WorkloadSettings,
)
from penstock.cli.flags import with_flags
from penstock.cli.local_model import load as load_model
from penstock.engine.bars import counting_bar
from penstock.engine.settings import EngineSettings

if TYPE_CHECKING:
    from penstock.bench.load import LoadResult
    from penstock.engine.llm import LLM
    from penstock.vocabulary.messages import EngineStats

Model = Annotated[
    str | None,
    typer.Argument(help="Directory or Hugging Face name. Without one, the small embedded model."),
]

bench = typer.Typer(
    name="bench",
    no_args_is_help=True,
    help="Measure how fast a model is answered.\n\n"
    "**latency** and **throughput** load the model into this very process; **serve** measures any "
    "server that speaks OpenAI's API. Compare only what was measured in the same way, on the same "
    "machine, with nothing else running on it.",
)


def latency(
    engine: EngineSettings,
    measured: LatencySettings,
    report: ReportSettings,
    model: Model = None,
) -> None:
    """How long one stream takes when nobody else asks.

    penstock bench latency --prompt-len 128 --prompt-len 1024 --output-len 64

    The first token is timed from handing in the prompt, the others each from the one before. The
    table has the median over the repeats of every figure.
    """
    from penstock.bench.in_process import measure_latency
    from penstock.bench.report import latency_table, write_json

    engine = dataclasses.replace(engine, model=model)
    llm = load_model(engine)
    before = llm.stats
    results = []
    for prompt_len in measured.prompt_lens:
        runs = measured.warmup + measured.repeats
        with counting_bar(f"Prompt of {prompt_len} tokens", runs) as on_run:
            results.append(measure_latency(llm, measured, prompt_len, on_run))
    Console().print(latency_table(results))
    machine = _machine(llm, before)
    if report.json_file is not None:
        settings = (engine, measured)
        figures = {"engine": llm.resolved, "results": results, **machine}
        write_json(report.json_file, "latency", settings, **figures)


def throughput(
    engine: EngineSettings,
    workload: WorkloadSettings,
    measured: ThroughputSettings,
    report: ReportSettings,
    model: Model = None,
) -> None:
    """How much is done in a second when many requests are there at once.

    penstock bench throughput --num-requests 64

    Without --workload, prompts are random tokens. Their lengths are lognormal with median 95 and
    sigma 1.3, clipped to 4..1024, those of the outputs with median 150 and sigma 0.8, clipped to
    4..800, and none ends before its length.
    """
    from penstock.bench.in_process import measure_throughput, medians, warm_up
    from penstock.bench.report import throughput_table, write_json
    from penstock.bench.workload import Workload

    engine = dataclasses.replace(engine, model=model)
    llm = load_model(engine)
    vocab_size, max_model_len = llm.resolved.vocab_size, llm.resolved.max_model_len
    work = Workload(workload, vocab_size=vocab_size, max_model_len=max_model_len)
    warm_up(llm, work.round(0)[: measured.warmup])
    before = llm.stats
    rounds = range(1, measured.repeats + 1)
    passes = [measure_throughput(llm, work.round(number)) for number in rounds]
    Console().print(throughput_table(passes))
    machine = _machine(llm, before)
    if report.json_file is not None:
        settings = (engine, workload, measured)
        figures = {"engine": llm.resolved, "results": passes, "medians": medians(passes), **machine}
        write_json(report.json_file, "throughput", settings, **figures)


def _machine(llm: "LLM", before: "EngineStats") -> dict[str, Any]:
    """Print which share of the machine's limits was used since `before`; both, for the report."""
    from penstock.bench.report import machine_table
    from penstock.engine.machine_use import machine_use, measure_limits

    limits = measure_limits(llm.resolved)
    if limits is None:
        return {}
    use = machine_use(before, llm.stats, limits)
    Console().print(machine_table(use, limits))
    return {"machine_limits": limits, "machine_use": use}


def serve(
    target: TargetSettings,
    workload: WorkloadSettings,
    load: LoadSettings,
    report: ReportSettings,
    picture: PlotSettings,
    url: Annotated[str, typer.Option(help="The server's root, as in http://127.0.0.1:8000")],
) -> None:
    """How a server holds up under load. Any that speaks OpenAI's completions API will do.

    penstock bench serve --url http://127.0.0.1:8000 --clients 1 --clients 4 --clients 16

    penstock bench serve --url http://127.0.0.1:8000 --rate 0.5 --rate 1 --plot latency.svg

    Requests are as in `penstock bench throughput`, the same for every load but for the tokens of
    made-up prompts. Latencies are of answered requests; failed ones are counted by what happened.

    A request is served well if its first token comes within a second for each 512 tokens of prompt,
    and then tokens come as fast as its reader reads: at every token, the moving average (span 16)
    of the time between tokens is at most 1 / reading speed. Served well per second is what
    DeepSpeed-FastGen calls effective throughput.
    """
    served, results = _measure(url, target, workload, load)
    _report(results)
    if report.json_file is not None:
        from penstock.bench.report import write_json

        settings = (target, workload, load)
        write_json(
            report.json_file, "serve", settings, url=url, served_model=served, results=results
        )
    if picture.plot is not None:
        from penstock.bench.plot import latency_plot

        picture.plot.write_text(latency_plot(results, f"Latency against load: {served}"))
    if not any(each.summary.num_answered for each in results):
        raise typer.Exit(1)


def _measure(
    url: str, target: TargetSettings, workload: WorkloadSettings, load: LoadSettings
) -> "tuple[str, list[LoadResult]]":
    """The served model's name and one result for each load, with a bar for each on the way."""
    from penstock.bench.load import bench_server  # here, since HTTP clients are slow to import

    with ExitStack() as bars, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        def on_start(name: str, num_requests: int) -> Callable[[], None]:
            bars.close()
            return bars.enter_context(counting_bar(name, num_requests))

        try:
            return runner.run(bench_server(url, target, workload, load, on_start))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def _report(results: "list[LoadResult]") -> None:
    from penstock.bench.report import effective_table, latencies_table, rates_table

    console = Console()
    for table in (rates_table, latencies_table, effective_table):
        console.print(table(results), "")


for command in (latency, throughput, serve):
    bench.command()(with_flags(command))
