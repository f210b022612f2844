"""Text that arrives in pieces, read as if all of it were there."""

import re
from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")

Reading = Generator[None, None, T]
"""Something being read. It yields whenever it needs more text to go on."""

SPACE = re.compile(r"\s+")


class Reader:
    """A place in a text that is still growing.

    Methods that may have to wait are generators: each `yield` means "add more, or say that this is
    the end". What is read is gone, unless it is being recorded.
    """

    def __init__(self) -> None:
        self._text = ""
        self._place = 0
        self._has_ended = False
        self._record: list[str] | None = None

    # -- the side of whoever has the text --------------------------------------------------------

    def add(self, text: str) -> None:
        """Append a piece. Readers leave at most a part of a tag unread, so this copies little."""
        self._text = self._text[self._place :] + text
        self._place = 0

    def end(self) -> None:
        """There will be no more."""
        self._has_ended = True

    # -- the side of whoever reads it ------------------------------------------------------------

    def record(self) -> None:
        """From here on, remember what is read; forget what was recorded before."""
        self._record = []

    def recorded(self) -> str:
        """What was read since `record`."""
        record, self._record = self._record or [], None
        return "".join(record)

    def peek(self) -> Reading[str]:
        """The next character, unread; empty at the end of the text."""
        while self._place == len(self._text):
            if self._has_ended:
                return ""
            yield
        return self._text[self._place]

    def take(self) -> str:
        """Read the character that `peek` has shown."""
        return self._read(self._place + 1)

    def run(self, pattern: re.Pattern[str]) -> str:
        """Read as much as matches `pattern` here and has arrived, perhaps nothing."""
        match = pattern.match(self._text, self._place)
        return self._read(match.end()) if match else ""

    def whole_run(self, pattern: re.Pattern[str]) -> Reading[str]:
        """Read on for as long as characters match `pattern`, which looks at one at a time."""
        runs = []
        while (yield from self.peek()) and (run := self.run(pattern)):
            runs.append(run)
        return "".join(runs)

    def sees(self, string: str) -> Reading[bool]:
        """Whether the text goes on with `string`, which stays unread."""
        while (arrived := self._text[self._place : self._place + len(string)]) != string:
            if self._has_ended or not string.startswith(arrived):
                return False
            yield
        return True

    def skips(self, string: str) -> Reading[bool]:
        """Read `string` if the text goes on with it; whether it does."""
        found = yield from self.sees(string)
        if found:
            self._read(self._place + len(string))
        return found

    def skip_space(self) -> Reading[str]:
        """Read white space, if there is any."""
        return (yield from self.whole_run(SPACE))

    def rest(self, say: Callable[[str], None]) -> Reading[None]:
        """Read everything that is left, saying it as it comes."""
        while (yield from self.peek()):
            say(self._read(len(self._text)))

    def until(self, tags: tuple[str, ...], say: Callable[[str], None]) -> Reading[tuple[str, str]]:
        """Read up to one of `tags` and past it, saying what comes before.

        Returns the tag, empty at the end of the text, and the white space before it, which is not
        said: it belongs to the tag if the tag turns out to be one.
        """
        plain = _plain(tags)
        space: list[str] = []
        while char := (yield from self.peek()):
            if char.isspace():
                space.append(self.run(SPACE))
                continue
            for tag in tags:
                if char == tag[0] and (yield from self.skips(tag)):
                    return tag, "".join(space)
            say("".join(space) + (self.run(plain) or self.take()))
            space.clear()
        return "", "".join(space)

    def _read(self, end: int) -> str:
        text = self._text[self._place : end]
        self._place = end
        if self._record is not None:
            self._record.append(text)
        return text


def _plain(tags: tuple[str, ...]) -> re.Pattern[str]:
    """Characters that neither begin a tag nor are white space."""
    starts = re.escape("".join(sorted({tag[0] for tag in tags})))
    return re.compile(rf"[^\s{starts}]+")
