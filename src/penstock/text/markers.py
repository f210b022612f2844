"""Control tokens that only a chat template may write, and never the text of a client.

A chat template marks turns, tools and thoughts with tokens of their own, spelled like `<|im_end|>`.
Whoever can have such a token put into a prompt can forge a turn. Spelled out by a client it must
therefore become what it looks like: ordinary characters.
"""

import re
from collections.abc import Collection
from itertools import pairwise
from typing import Any, NamedTuple

import tokenizers

from penstock.vocabulary.errors import InvalidRequest

_UNFIT_FOR_STAND_INS = re.compile(r"[\w\s\"\\]")  # words, and what JSON would escape
_CONTROL = re.compile(r"<[|｜].*[|｜]>")
# Characters that hardly anybody uses, and that no template changes: hexagrams and Braille, which
# even Python's repr leaves as they are, and those that Unicode leaves to private use.
_RARE = [*range(0x4DC0, 0x4E00), *range(0x2800, 0x2900), *range(0xE000, 0xF900)]

MAX_FORGED = 10_000


class Span(NamedTuple):
    """Where in a text a marker stands, and the token id that it means."""

    begin: int
    end: int
    token_id: int


class Mask:
    """Stand-ins for the characters with which markers begin and end.

    A text made of masked texts and a template's own words contains a marker only where both its
    ends are the template's. `undo` brings the characters back; no length changes on the way.
    `has_changed` says whether any text had such a character.
    """

    def __init__(self, chars: Collection[str], *, kept: re.Pattern[str], unlike: str) -> None:
        present = set(unlike)
        unused = (char for char in map(chr, _RARE) if char not in present)
        pairs = dict(zip(chars, unused, strict=False))
        if len(pairs) < len(chars):
            raise InvalidRequest("The text uses every rare character there is.", param="messages")
        self.has_changed = False
        self._forth = str.maketrans(pairs)
        self._back = str.maketrans({stand_in: char for char, stand_in in pairs.items()})
        self._kept = kept

    def apply(self, text: str, *, keeps: bool = False) -> str:
        """`text` with stand-ins; if it `keeps`, the markers that may be kept stay as they are."""
        parts, place = [], 0
        for match in self._kept.finditer(text) if keeps else ():
            parts += [text[place : match.start()].translate(self._forth), match[0]]
            place = match.end()
        masked = "".join([*parts, text[place:].translate(self._forth)])
        self.has_changed |= masked != text
        return masked

    def undo(self, text: str) -> str:
        """What was masked, as it was."""
        return text.translate(self._back)


class Markers:
    """The markers of a vocabulary: its special tokens, and added ones that look or serve like them:
    spelled as `<|...|>`, or written in the chat template.

    `unknown` is the spelling of the token that may stand for any character, if there is one.
    """

    def __init__(
        self, library: tokenizers.Tokenizer, template_source: str, *, unknown: str | None
    ) -> None:
        added = library.get_added_tokens_decoder()
        self._ids = {
            token.content: id_
            for id_, token in added.items()
            if token.special
            or _CONTROL.fullmatch(token.content)
            or token.content in template_source
            if token.content != unknown and _can_be_guarded(token.content)
        }
        self._token_ids = frozenset(self._ids.values())
        self._plain = any_of([text for text, id_ in self._ids.items() if not added[id_].special])
        ends = {char for text in self._ids for char in (text[0], text[-1])}
        self._ends = {char for char in ends if not _UNFIT_FOR_STAND_INS.match(char)}
        self._pattern = any_of(self._ids)
        self._library = library

    def mask(self, *, unlike: str) -> Mask:
        """A mask whose stand-ins do not occur in `unlike`.

        What it keeps on demand are markers that are no special tokens, such as `</think>`:
        templates look for these in what the model itself has said.
        """
        return Mask(self._ends, kept=self._plain, unlike=unlike)

    def find(self, text: str) -> list[Span]:
        """All markers in `text`, in order; where several begin, the longest."""
        return [
            Span(match.start(), match.end(), self._ids[match[0]])
            for match in self._pattern.finditer(text)
        ]

    def among(self, token_ids: list[int]) -> list[int]:
        """Those of `token_ids` that are markers."""
        return [id_ for id_ in token_ids if id_ in self._token_ids]

    def encode_without(self, forged: list[Span], text: str) -> list[int]:
        """Token ids of `text`, in which the markers at `forged` become ordinary characters.

        The library recognizes every marker that it is shown. So it gets each of these in halves
        that overlap, one without the last character and one without the first, and the halves are
        cut where both have a token boundary. As tokens depend only on what is near them, that gives
        the tokens of the whole; where no boundary agrees, the halves just touch.
        """
        if len(forged) > MAX_FORGED:
            raise InvalidRequest(
                f"The messages spell control tokens more than {MAX_FORGED} times.", param="messages"
            )
        begins = [0, *(span.begin + 1 for span in forged)]
        ends = [*(span.end - 1 for span in forged), len(text)]
        stretches = [self._tokens(text, *place) for place in zip(begins, ends, strict=True)]
        cuts = [0]
        for number, span in enumerate(forged, start=1):
            cut = _agreed(stretches[number - 1], stretches[number], span)
            if cut is None:
                cut = span.end - 1
                stretches[number] = self._tokens(text, cut, ends[number])
            cuts.append(cut)
        cuts.append(len(text))
        return [
            token.id
            for stretch, (begin, end) in zip(stretches, pairwise(cuts), strict=True)
            for token in stretch
            if begin <= token.begin and token.end <= end
        ]

    def _tokens(self, text: str, begin: int, end: int) -> "list[_Token]":
        """The tokens of a part of `text`."""
        [encoding] = self._library.encode_batch([text[begin:end]], add_special_tokens=False)
        return [
            _Token(id_, begin + first, begin + last)
            for id_, (first, last) in zip(encoding.ids, encoding.offsets, strict=True)
        ]


def _can_be_guarded(spelling: str) -> bool:
    """Words and white space that happen to be added tokens are as ordinary as they look."""
    ends = (spelling[:1], spelling[-1:])
    return len(spelling) > 1 and not all(map(_UNFIT_FOR_STAND_INS.match, ends))


class _Token(NamedTuple):
    """`begin` and `end` are places in the text that is being encoded."""

    id: int
    begin: int
    end: int


def _agreed(left: list[_Token], right: list[_Token], span: Span) -> int | None:
    """Where within `span` both halves have a boundary: near the middle, where both know best."""
    ends = {token.end for token in left if token.end > span.begin}
    begins = {token.begin for token in right if token.begin < span.end}
    agreed = [cut for cut in ends & begins if span.begin < cut < span.end]
    middle = (span.begin + span.end) / 2
    return min(agreed, key=lambda cut: (abs(cut - middle), -cut), default=None)


def any_of(strings: Collection[str]) -> re.Pattern[str]:
    """A pattern that matches the longest of `strings`, in time that does not depend on how many."""
    tree: dict[str, Any] = {}
    for string in strings:
        node = tree
        for char in string:
            node = node.setdefault(char, {})
        node[""] = {}
    return re.compile(_alternatives(tree) if tree else r"(?!)")


def _alternatives(node: dict[str, Any]) -> str:
    branches = [re.escape(char) + _alternatives(rest) for char, rest in node.items() if char]
    if not branches:
        return ""
    return f"(?:{'|'.join(branches)})" + ("?" if "" in node else "")
