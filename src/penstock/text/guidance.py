"""A grammar in the words of llguidance (github.com/guidance-ai/llguidance, docs/syntax.md)."""

import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from llguidance import LLMatcher
from llguidance.gbnf_to_lark import gbnf_to_lark

from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.grammar import Grammar, StructuralTag, StructuralTags

# One space, or a new line and its indentation, wherever JSON may have whitespace. Without a bound a
# model that sees no way on writes whitespace until it is cut off.
WHITESPACE = r" |\r?\n[ \t]{0,40}"
_ANY_TEXT = r"/(.|\n)*/"
_IS_GBNF = re.compile(r"^\s*[\w-]+\s*::=", re.MULTILINE)

T = TypeVar("T")


def guidance(grammar: Grammar, special_tokens: Mapping[str, int], *, max_depth: int) -> str:
    """The grammar as llguidance takes it.

    `special_tokens` are text to id; the text of one, in a structural tag or in `after`, means the
    token. Raises `InvalidRequest` for what is no grammar of its kind, or a JSON schema that nests
    deeper than `max_depth`.
    """
    match grammar.kind:
        case "json_schema":
            body = _json_schema(grammar.text, grammar.param, max_depth)
        case "json_object":
            body = _json_schema('{"type": "object"}', grammar.param, max_depth)
        case "regex":
            body = LLMatcher.grammar_from_regex(grammar.text)
        case "choice":
            body = _lark("start: " + " | ".join(map(_literal, _choices(grammar))))
        case "lark":
            body = _lark(_from_gbnf(grammar) if _IS_GBNF.search(grammar.text) else grammar.text)
        case "structural_tag":
            body = _lark(_tags(grammar, special_tokens, max_depth))
    return _behind(grammar.after, body, special_tokens) if grammar.after else body


def _json_schema(text: str, param: str, max_depth: int) -> str:
    _check_schema(_decoded(text, dict[str, Any], param), param, max_depth)
    try:
        return LLMatcher.grammar_from_json_schema(text, defaults={"whitespace_pattern": WHITESPACE})
    except ValueError as error:  # its reader of JSON is stricter than ours, and less deep
        raise InvalidRequest(f"{param}: {error}", param=param) from None


def _check_schema(schema: Any, param: str, max_depth: int) -> None:
    """Refuse what nests too deeply, and what llguidance lets pass though it would not hold."""
    level = [schema]
    for _ in range(max_depth):
        for value in level:
            if isinstance(value, dict):
                _check_min_properties(value, param)
        level = [part for value in level for part in _parts(value)]
        if not level:
            return
    raise InvalidRequest(
        f"{param} nests deeper than {max_depth} levels.",
        param=param,
        remedy="Name parts of it under $defs and refer to them by $ref.",
    )


def _parts(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value
    return [part for part in inner if isinstance(part, dict | list)]


def _check_min_properties(schema: dict[str, Any], param: str) -> None:
    """llguidance counts a key that is repeated, which a reader of the JSON sees once."""
    least, required = schema.get("minProperties"), schema.get("required", [])
    num_required = len(required) if isinstance(required, list) else 0
    if isinstance(least, int) and least > max(1, num_required):
        raise InvalidRequest(
            f"{param}: minProperties {least} cannot be enforced.",
            param=param,
            remedy="Name the properties that must be there under required.",
        )


def _choices(grammar: Grammar) -> list[str]:
    choices = _decoded(grammar.text, list[str], grammar.param)
    if not choices:
        raise InvalidRequest(f"{grammar.param} offers no choice.", param=grammar.param)
    return choices


def _from_gbnf(grammar: Grammar) -> str:
    try:
        return str(gbnf_to_lark(grammar.text))
    # The converter raises plain exceptions, and stumbles over some texts.
    except Exception as error:
        raise InvalidRequest(
            f"{grammar.param} is no GBNF grammar: {error}", param=grammar.param
        ) from None


def _tags(grammar: Grammar, special_tokens: Mapping[str, int], max_depth: int) -> str:
    """Free text, at any point of which a trigger starts one of the tags that begin with it."""
    tags = _decoded(grammar.text, StructuralTags, grammar.param)
    rules = [f"TEXT: {_ANY_TEXT}"]
    for number, tag in enumerate(tags.structures):
        _check_schema(tag.schema, grammar.param, max_depth)
        rules.append(f"tag_{number}: {_rest(tag, _trigger_of(tag, tags, grammar), special_tokens)}")
    for number, trigger in enumerate(tags.triggers):
        which = [
            f"tag_{i}" for i, tag in enumerate(tags.structures) if tag.begin.startswith(trigger)
        ]
        if not which:
            raise InvalidRequest(f"No structure begins with {trigger!r}.", param=grammar.param)
        alternatives = f"({' | '.join(which)})"
        rules.append(f"first_{number}: {_words(trigger, special_tokens)} {alternatives}")
        if _holds_special(trigger, special_tokens):
            rules.append(f"later_{number}: TEXT {_words(trigger, special_tokens)} {alternatives}")
        else:
            rules.append(f"upto_{number}[lazy]: TEXT {_literal(trigger)}")
            rules.append(f"later_{number}: upto_{number} {alternatives}")
    first, later = (
        f"({' | '.join(f'{name}_{number}' for number in range(len(tags.triggers)))})"
        for name in ("first", "later")
    )
    return "\n".join([_start(tags, first, later), *rules])


def _start(tags: StructuralTags, first: str, later: str) -> str:
    match tags.at_least_one, tags.stop_after_first:
        case True, True:
            return f"start: {first}"
        case True, False:
            return f"start: {first} {later}* TEXT"
        case False, True:
            return f"start: {later} | TEXT"
        case _:
            return f"start: {later}* TEXT"


def _trigger_of(tag: StructuralTag, tags: StructuralTags, grammar: Grammar) -> str:
    triggers = [trigger for trigger in tags.triggers if tag.begin.startswith(trigger)]
    if len(triggers) != 1:
        raise InvalidRequest(
            f"{tag.begin!r} begins with {len(triggers)} of the triggers; it must be one.",
            param=grammar.param,
        )
    return triggers[0]


def _rest(tag: StructuralTag, trigger: str, special_tokens: Mapping[str, int]) -> str:
    begin = _words(tag.begin.removeprefix(trigger), special_tokens)
    schema = {"x-guidance": {"whitespace_pattern": WHITESPACE}, **tag.schema}
    return f"{begin} %json {json.dumps(schema)} {_words(tag.end, special_tokens)}"


def _words(text: str, special_tokens: Mapping[str, int]) -> str:
    """Text as a sequence of literals, and of token ids for the special tokens in it."""
    known = [name for name in special_tokens if name and name in text]
    known.sort(key=len, reverse=True)
    pieces = re.split(f"({'|'.join(map(re.escape, known))})", text) if known else [text]
    return " ".join(
        f"<[{special_tokens[piece]}]>" if piece in known else _literal(piece)
        for piece in pieces
        if piece
    )


def _holds_special(text: str, special_tokens: Mapping[str, int]) -> bool:
    """Whether more than letters is meant, so that no lexeme can find it in a text."""
    return any(name and name in text for name in special_tokens)


def _behind(after: str, body: str, special_tokens: Mapping[str, int]) -> str:
    """Any text up to `after`, and whitespace behind it; then the grammar."""
    rules = ["start: before SPACE? @body", r"SPACE: /[ \t\r\n]{1,8}/", f"TEXT: {_ANY_TEXT}"]
    if _holds_special(after, special_tokens):
        rules.append(f"before: TEXT {_words(after, special_tokens)}")
    else:
        rules.append(f"before[lazy]: TEXT {_literal(after)}")
    [inner] = json.loads(body)["grammars"]
    outer = {"lark_grammar": "\n".join(rules)}
    return json.dumps({"grammars": [outer, {**inner, "name": "body"}]})


def _lark(text: str) -> str:
    return json.dumps({"grammars": [{"lark_grammar": text}]})


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _decoded(text: str, kind: type[T], param: str) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"{param}: {error}", param=param) from None
