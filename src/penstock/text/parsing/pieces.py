"""What a stretch of a model's words can be, and the collector that readers put it into."""

from collections.abc import Callable, Collection

import msgspec


class Content(msgspec.Struct, frozen=True):
    """A piece of the answer's text."""

    text: str


class Reasoning(msgspec.Struct, frozen=True):
    """A piece of what the model thinks before it answers."""

    text: str


class CallBegin(msgspec.Struct, frozen=True):
    """The model calls the tool `name`. `index` counts the calls of an answer from 0."""

    index: int
    id: str
    name: str


class CallArguments(msgspec.Struct, frozen=True):
    """A piece of the arguments of call `index`: in all, the text of a JSON object.

    As in OpenAI's API it is what the model wrote, and nobody can know that it is valid before it
    is complete. It ends within the object if the answer ends there.
    """

    index: int
    text: str


Piece = Content | Reasoning | CallBegin | CallArguments


class Said:
    """The pieces that a reader has made of a text and that nobody has taken yet.

    `new_id` makes the id of a call, for models that do not give any. `names` are those of the tools
    on offer; formats that mark calls by nothing but their shape believe only in these.
    """

    def __init__(self, new_id: Callable[[], str] = str, names: Collection[str] = ()) -> None:
        self.names = names
        self._new_id = new_id
        self._num_calls = 0
        self._pieces: list[Piece] = []
        self._last: type[Piece] | None = None

    @property
    def ends_with_call(self) -> bool:
        """Whether nothing has been said since a call."""
        return self._last in (CallBegin, CallArguments)

    def content(self, text: str) -> None:
        """Add to the answer's text."""
        if text:
            self._add(Content(text))

    def reasoning(self, text: str) -> None:
        """Add to the thoughts."""
        if text:
            self._add(Reasoning(text))

    def call(self, name: str, id: str | None = None) -> None:
        """Begin a call."""
        self._add(CallBegin(self._num_calls, id or self._new_id(), name))
        self._num_calls += 1

    def arguments(self, text: str) -> None:
        """Add to the arguments of the call that was begun last."""
        if text:
            self._add(CallArguments(self._num_calls - 1, text))

    def end(self, space: str) -> None:
        """The text has ended with `space`, which behind a call means nothing."""
        if not self.ends_with_call:
            self.content(space)

    def taken(self) -> list[Piece]:
        """Hand out the pieces; neighbours of a kind as one."""
        pieces, self._pieces = self._pieces, []
        return joined(pieces) if len(pieces) > 1 else pieces

    def _add(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self._last = type(piece)


def joined(pieces: list[Piece]) -> list[Piece]:
    """The same with fewer pieces: those that continue each other become one."""
    groups: list[list[Piece]] = []
    for piece in pieces:
        if groups and _continues(groups[-1][0], piece):
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return [group[0] if len(group) == 1 else _one(group) for group in groups]


def _continues(first: Piece, second: Piece) -> bool:
    match first, second:
        case (Content(), Content()) | (Reasoning(), Reasoning()):
            return True
        case CallArguments(), CallArguments():
            return first.index == second.index
    return False


def _one(group: list[Piece]) -> Piece:
    text = "".join(piece.text for piece in group if not isinstance(piece, CallBegin))
    first = group[0]
    assert not isinstance(first, CallBegin)
    return msgspec.structs.replace(first, text=text)
