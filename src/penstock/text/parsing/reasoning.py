"""Thoughts before the answer, between tags: `<think>...</think>` or `[THINK]...[/THINK]`."""

from dataclasses import dataclass

from penstock.text.parsing.pieces import Said
from penstock.text.parsing.reader import Reader, Reading


@dataclass(frozen=True, kw_only=True)
class ReasoningFormat:
    """A pair of tags around what a model thinks."""

    name: str
    open: str
    close: str

    @property
    def tags(self) -> tuple[str, ...]:
        return (self.open, self.close)

    def is_opened_by(self, prompt: str) -> bool:
        """Whether the prompt ends with thoughts already begun, so that the answer starts within."""
        return prompt.rstrip().endswith(self.open)

    def read(self, reader: Reader, said: Said, *, is_open: bool) -> Reading[None]:
        """Tell thoughts from the answer. Thoughts come first, and once."""
        if not is_open:
            space = yield from reader.skip_space()
            is_open = yield from reader.skips(self.open)
            if not is_open:
                said.content(space)
        if is_open:
            yield from reader.skip_space()
            yield from reader.until((self.close,), said.reasoning)
            yield from reader.skip_space()
        yield from reader.rest(said.content)


THINK = ReasoningFormat(name="think", open="<think>", close="</think>")
MISTRAL_THINK = ReasoningFormat(name="mistral", open="[THINK]", close="[/THINK]")
