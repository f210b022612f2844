"""Stop strings: where a completion's text ends, found while it arrives."""

import functools


class StopStrings:
    """One completion's text, cut at the first of its stop strings to be complete.

    The rule is that of a reader who looks after every character: the stop string that ends earliest
    wins, and of those that end together the longest, so that no part of it shows. How the text is
    cut into pieces changes nothing. The work is linear in the text, however near a match it comes.
    """

    def __init__(self, stop: list[str], *, include_in_output: bool = False) -> None:
        self._searches = [_Search(string) for string in stop]
        self._include_in_output = include_in_output
        self._withheld = ""
        self._found: str | None = None

    def add(self, text: str, *, may_end: bool = True) -> tuple[str, str | None]:
        """The text that is now safe to show, and the stop string that ended it, if one did.

        Once the text has ended, whatever else is added is not part of it. Where it may not end yet,
        stop strings that become complete are text; one that has only begun may end it later.
        """
        if self._found is not None:
            return "", self._found
        if not may_end:
            for search in self._searches:
                search.skip(text)
            return self._safe(text), None
        found, end = self._first_found(text)
        if found is not None:
            self._found = found.string
            shown = self._withheld + text[:end]
            self._withheld = ""
            return (shown if self._include_in_output else shown[: -len(found.string)]), found.string
        return self._safe(text), None

    def _safe(self, text: str) -> str:
        """What may be shown once `text` has come and ends nothing."""
        return text if self._include_in_output else self._keep_back(self._withheld + text)

    def finish(self) -> str:
        """What was withheld: no stop string will come of it any more."""
        rest, self._withheld = self._withheld, ""
        return rest

    def _first_found(self, text: str) -> "tuple[_Search | None, int]":
        """The search that ends earliest in `text`, the longest of several, and where it ends."""
        found, end = None, len(text)
        for search in self._searches:
            its_end = search.advance(text)
            if its_end is None:
                continue
            if found is None or (its_end, -len(search.string)) < (end, -len(found.string)):
                found, end = search, its_end
        return found, end

    def _keep_back(self, text: str) -> str:
        """`text` without the longest suffix that may yet become a stop string."""
        shown_len = len(text) - max((search.matched_len for search in self._searches), default=0)
        self._withheld = text[shown_len:]
        return text[:shown_len]


class _Search:
    """Knuth, Morris and Pratt's search for one string in a text that arrives in pieces.

    `matched_len` is the length of the longest prefix of `string` that the text so far ends with.
    """

    def __init__(self, string: str) -> None:
        self.string = string
        self.matched_len = 0
        self._borders = _borders(string)

    def advance(self, text: str) -> int | None:
        """Read on; where in `text` the string became complete, or None if it did not."""
        string, borders, matched_len = self.string, self._borders, self.matched_len
        place = 0
        while place < len(text):
            if matched_len == 0:  # most of the time: let the library skip ahead
                place = text.find(string[0], place)
                if place < 0:
                    break
            character = text[place]
            while matched_len and string[matched_len] != character:
                matched_len = borders[matched_len - 1]
            if string[matched_len] == character:
                matched_len += 1
            place += 1
            if matched_len == len(string):
                return place
        self.matched_len = matched_len
        return None

    def skip(self, text: str) -> None:
        """Read on, whatever becomes complete."""
        while (end := self.advance(text)) is not None:
            text = text[end:]
            self.matched_len = self._borders[-1]


@functools.lru_cache(maxsize=64)
def _borders(string: str) -> list[int]:
    """For every prefix, the length of its longest proper prefix that is also its suffix.

    All completions of a request look for the same strings, and there may be a thousand of them.
    """
    borders = [0]
    for character in string[1:]:
        border = borders[-1]
        while border and string[border] != character:
            border = borders[border - 1]
        borders.append(border + (string[border] == character))
    return borders
