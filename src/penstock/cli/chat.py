"""`penstock chat`: talk to a model in the terminal."""

import contextlib
import readline  # noqa: F401 (gives input() a history and editing keys)
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from penstock.cli.flags import SamplingFlags
from penstock.cli.local_model import load
from penstock.engine.settings import EngineSettings
from penstock.vocabulary.errors import ContextTooLong
from penstock.vocabulary.sampling_params import SamplingParams

if TYPE_CHECKING:
    from penstock.engine.llm import LLM

_HELP = "/reset forgets the conversation, /undo the last exchange, /exit or Ctrl-D leaves."

Message = dict[str, Any]


def chat(
    engine: EngineSettings,
    sampling: SamplingFlags,
    system: Annotated[
        str | None, typer.Option(help="Instructions that the conversation begins with.")
    ] = None,
) -> None:
    """Talk to a model. It remembers the conversation until the context is full.

    While an answer comes, Ctrl-C cuts it short.
    """
    llm = load(engine)
    params = llm.default_sampling_params(**{"max_tokens": None, **sampling})
    Conversation(llm, params, system, Console(highlight=False)).run()


class Conversation:
    """The messages so far, and how to go on with them."""

    def __init__(self, llm: "LLM", params: SamplingParams, system: str | None, console: Console):
        self.llm = llm
        self.params = params
        self.console = console
        self.opening: list[Message] = [{"role": "system", "content": system}] if system else []
        self.messages: list[Message] = []

    def run(self) -> None:
        """Read and answer lines until there are no more."""
        self.console.print(f"Talking to [bold]{self.llm.resolved.model}[/]. {_HELP}")
        while (line := self._read()) is not None:
            if line == "/reset":
                self.messages = []
            elif line == "/undo":
                self.messages = self.messages[:-2]
            elif line.startswith("/"):
                self.console.print(_HELP)
            elif line:
                self.answer(line)

    def answer(self, line: str) -> None:
        """Stream the answer to one line; what came of it joins the conversation."""
        self.messages.append({"role": "user", "content": line})
        text = ""
        with contextlib.suppress(KeyboardInterrupt):
            for delta in self.llm.stream(self._prompt(), self.params):
                text += delta.text
                self.console.out(delta.text, end="", highlight=False)
                self.console.file.flush()
        self.console.print("\n")
        self.messages.append({"role": "assistant", "content": text})

    def _prompt(self) -> Any:
        """The conversation as a prompt. The oldest exchanges go when the context is half full."""
        while True:
            prompt = self.llm.chat_prompt(self.opening + self.messages)
            prompt_len = len(prompt["prompt_token_ids"])
            if 2 * prompt_len <= self.llm.resolved.max_model_len:
                return prompt
            if len(self.messages) == 1:
                if prompt_len < self.llm.resolved.max_model_len:
                    return prompt
                raise ContextTooLong(prompt_len, None, self.llm.resolved.max_model_len)
            self.messages = self.messages[2:]
            self.console.print("(The beginning of the conversation was forgotten.)", style="dim")

    def _read(self) -> str | None:
        try:
            line = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            self.console.print()
            return None
        return None if line == "/exit" else line
