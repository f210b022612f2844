"""`penstock generate`: continue text, without a server."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from penstock.cli.flags import SamplingFlags
from penstock.cli.local_model import load
from penstock.engine.settings import EngineSettings
from penstock.vocabulary.sampling_params import SamplingParams

if TYPE_CHECKING:
    from penstock.engine.llm import LLM

_MAX_TOKENS = 128


def generate(
    engine: EngineSettings,
    sampling: SamplingFlags,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(help="What to continue. Without any, standard input is read as one prompt."),
    ] = None,
    echo: Annotated[
        bool | None,
        typer.Option(help="Print the prompt before its continuation. Usually on a terminal only."),
    ] = None,
) -> None:
    """Continue one or more prompts and print what comes.

    penstock generate "def fibonacci(n):"

    penstock generate --temperature 0 --max-tokens 40 "import os" "class Stack:"
    """
    prompts = prompts or [sys.stdin.read()]
    llm = load(engine)
    params = llm.default_sampling_params(**{"max_tokens": _MAX_TOKENS, **sampling})
    console = Console(highlight=False, soft_wrap=True)
    shows_prompt = console.is_terminal if echo is None else echo
    if len(prompts) == 1 and params.n == 1:
        _stream(llm, prompts[0], params, console, shows_prompt=shows_prompt)
        return
    for result in llm.generate(prompts, params):
        for output in result.outputs:
            console.rule(f"{result.prompt!r:.60}  [{output.index}] {output.finish_reason}")
            _print(console, result.prompt or "", output.text, shows_prompt=shows_prompt)
            console.print()


def _stream(
    llm: "LLM", prompt: str, params: SamplingParams, console: Console, *, shows_prompt: bool
) -> None:
    _print(console, prompt, "", shows_prompt=shows_prompt)
    for delta in llm.stream(prompt, params):
        console.out(delta.text, end="", highlight=False)
        console.file.flush()
    console.print()


def _print(console: Console, prompt: str, text: str, *, shows_prompt: bool) -> None:
    if shows_prompt:
        console.out(prompt, end="", style="bold", highlight=False)
    console.out(text, end="", highlight=False)
    console.file.flush()
