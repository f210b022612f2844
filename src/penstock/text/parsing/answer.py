"""One completion's words on their way to the client: thoughts, then content and calls."""

from collections.abc import Callable, Collection

from penstock.text.parsing.pieces import CallArguments, CallBegin, Content, Piece, Said, joined
from penstock.text.parsing.reader import Reader, Reading
from penstock.text.parsing.reasoning import ReasoningFormat
from penstock.text.parsing.tool_format import ToolFormat


class StreamParser:
    """Drives one format's reader over a text that arrives in pieces."""

    def __init__(self, read: Callable[[Reader, Said], Reading[None]], said: Said) -> None:
        self._reader = Reader()
        self._said = said
        self._reading = read(self._reader, said)

    def add(self, text: str) -> list[Piece]:
        """What is certain now that `text` has arrived."""
        self._reader.add(text)
        next(self._reading, None)
        return self._said.taken()

    def finish(self) -> list[Piece]:
        """What was held back: no more text will come."""
        self._reader.end()
        next(self._reading, None)
        return self._said.taken()


class AnswerParser:
    """Makes pieces of one completion's text.

    However the text is cut, the pieces say the same in sum. `tools` is None where the model may
    call nothing, `names` are the tools on offer, `max_calls` bounds how many calls are passed on;
    further ones are left out. `prompt` is what the completion follows.
    """

    def __init__(
        self,
        *,
        reasoning: ReasoningFormat | None = None,
        tools: ToolFormat | None = None,
        names: Collection[str] = (),
        max_calls: int | None = None,
        prompt: str = "",
    ) -> None:
        self._reasoning = self._tools = None
        if reasoning is not None:
            is_open = reasoning.is_opened_by(prompt)
            self._reasoning = StreamParser(
                lambda reader, said: reasoning.read(reader, said, is_open=is_open), Said()
            )
        if tools is not None:
            self._tools = StreamParser(tools.read, Said(tools.new_id, names))
        self._max_calls = max_calls
        self.num_calls = 0

    def add(self, text: str) -> list[Piece]:
        """What is certain now that `text` has arrived."""
        pieces: list[Piece] = [Content(text)] if text else []
        if self._reasoning is not None:
            pieces = self._reasoning.add(text)
        return self._passed_on(pieces)

    def finish(self) -> list[Piece]:
        """What was held back: no more text will come."""
        held = self._passed_on([] if self._reasoning is None else self._reasoning.finish())
        if self._tools is not None:
            held += self._kept(self._tools.finish())
        return joined(held)

    def _passed_on(self, pieces: list[Piece]) -> list[Piece]:
        """Thoughts are done; content may hold calls."""
        if self._tools is None:
            return pieces
        passed_on: list[Piece] = []
        for piece in pieces:
            if isinstance(piece, Content):
                passed_on += self._kept(self._tools.add(piece.text))
            else:
                passed_on.append(piece)
        return passed_on

    def _kept(self, pieces: list[Piece]) -> list[Piece]:
        kept = [piece for piece in pieces if not self._is_beyond(piece)]
        self.num_calls += sum(isinstance(piece, CallBegin) for piece in kept)
        return kept

    def _is_beyond(self, piece: Piece) -> bool:
        if self._max_calls is None or not isinstance(piece, CallBegin | CallArguments):
            return False
        return piece.index >= self._max_calls
