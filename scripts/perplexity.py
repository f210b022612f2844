"""What rounding costs: held-out perplexity of a model for every way to keep its weights.

  python -m scripts.perplexity
      the embedded model, in float32 first, then in each other way

  python -m scripts.perplexity --model DIR --weights float32 --weights int4 --tokens 20000

Computed through the engine, with whatever kernels it chooses. The text is what the embedded model
never learned from; each token is predicted once, from what precedes it in its own row.
"""

import argparse
import itertools
import math
from typing import Any

from rich.console import Console
from rich.table import Table

from penstock.engine.llm import LLM
from penstock.vocabulary.sampling_params import SamplingParams
from scripts.default_model.conversations import END_OF_TEXT
from scripts.default_model.corpus import load_corpus

WEIGHTS = ("float32", "bfloat16", "int8", "int4")
KV_DTYPES = ("float32", "int8")


def main() -> None:
    """Measure what the command line asks for, and print it beside the first."""
    options = parse_arguments()
    text = held_out_text()
    table = Table("weights", "keys and values", title="held-out perplexity, rows of 512")
    table.add_column("per token", justify="right")
    table.add_column("against the first", justify="right")
    base = None
    for weights, kv_dtype in itertools.product(options.weights, options.kv_dtype):
        found = perplexity(
            text, options.model, tokens=options.tokens, weights=weights, kv_dtype=kv_dtype
        )
        base = base or found
        table.add_row(weights, kv_dtype, f"{found:.4f}", f"{found / base - 1:+.3%}")
    Console().print(table)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.perplexity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", help="model directory; default: the embedded model")
    parser.add_argument("--weights", action="append", help=f"default: {', '.join(WEIGHTS)}")
    parser.add_argument("--kv-dtype", action="append", help=f"default: {', '.join(KV_DTYPES)}")
    parser.add_argument("--tokens", type=int, help="how much text to read; default: all of it")
    options = parser.parse_args()
    options.weights = options.weights or WEIGHTS
    options.kv_dtype = options.kv_dtype or KV_DTYPES
    return options


def held_out_text() -> str:
    """The documents that the embedded model never learned from, in order of name."""
    documents = load_corpus().held_out
    return END_OF_TEXT + "".join(document.text + END_OF_TEXT for document in documents)


def perplexity(
    text: str,
    model: str | None = None,
    *,
    tokens: int | None = None,
    row_len: int = 512,
    **settings: Any,
) -> float:
    """Of the text's first tokens, with these settings of the engine."""
    llm = LLM(model, prefix_caching=False, **settings)
    token_ids = llm.tokenizer.encode(text)[: None if tokens is None else tokens + 1]
    starts = range(0, len(token_ids) - 1, row_len)
    results = llm.generate(
        [{"prompt_token_ids": token_ids[start : start + row_len + 1]} for start in starts],
        SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0),
    )
    entries = [entry for result in results for entry in result.prompt_logprobs or () if entry]
    return math.exp(-sum(entry.logprob for entry in entries) / len(entries))


if __name__ == "__main__":
    main()
