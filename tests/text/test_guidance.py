"""What each kind of grammar lets a model write, asked of llguidance over small vocabularies."""

import json

import pytest
from llguidance import LLMatcher

from penstock.text.guidance import guidance
from penstock.text.token_trie import token_trie
from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.grammar import Grammar, StructuralTag, StructuralTags
from tests.text.vocabularies import TOKENIZERS

ENDS = {"byte_level": 1, "byte_fallback": 2}
CALLS = StructuralTags(
    triggers=["<fn="],
    structures=[
        StructuralTag(
            begin="<fn=add>",
            schema={
                "type": "object",
                "properties": {"x": {"type": "integer"}},
                "required": ["x"],
                "additionalProperties": False,
            },
            end="</fn>",
        ),
        StructuralTag(begin="<fn=now>", schema={"type": "null"}, end="</fn>"),
    ],
)
ADD, NOW = '<fn=add>{"x": 12}</fn>', "<fn=now>null</fn>"


@pytest.fixture(params=list(ENDS))
def kind(request) -> str:
    return request.param


def matcher_of(grammar: Grammar, kind: str) -> LLMatcher:
    tokenizer = TOKENIZERS[kind]
    trie = token_trie(tokenizer, vocab_size=tokenizer.vocab_size, end_token_ids=[ENDS[kind]])
    made = LLMatcher(trie, guidance(grammar, tokenizer.special_tokens, max_depth=32), log_level=0)
    assert not made.is_error(), made.get_error()
    return made


def accepts(grammar: Grammar, text: str, kind: str = "byte_level") -> bool:
    """Whether the text may be written, and may end there."""
    matcher = matcher_of(grammar, kind)
    ids = TOKENIZERS[kind].encode_within(text)
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


def test_a_json_schema_takes_json_of_its_kind_compact_spaced_or_indented(kind):
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
        "required": ["a"],
    }
    grammar = Grammar.json_schema(schema)
    document = {"a": 1, "b": "é"}
    for text in (
        json.dumps(document, separators=(",", ":"), ensure_ascii=False),
        json.dumps(document, ensure_ascii=False),
        json.dumps(document, indent=4, ensure_ascii=False),
    ):
        assert accepts(grammar, text, kind)
    assert not accepts(grammar, '{"b": "x"}', kind)
    assert not accepts(grammar, '{"a": "x"}', kind)
    assert not accepts(grammar, '{"a":   1}', kind), "whitespace without end"


def test_properties_come_in_the_order_of_the_schema():
    grammar = Grammar.json_schema({"properties": {"z": {}, "a": {}}, "required": ["z", "a"]})
    assert accepts(grammar, '{"z": 1, "a": 2}')
    assert not accepts(grammar, '{"a": 2, "z": 1}')


def test_a_json_object_is_any_object_and_nothing_else(kind):
    assert accepts(Grammar.json_object(), '{"a": [1, {"b": null}]}', kind)
    assert not accepts(Grammar.json_object(), "[1]", kind)


def test_a_regex_matches_the_whole_text(kind):
    grammar = Grammar.regex("[0-9]{3}é?")
    assert accepts(grammar, "123é", kind) and accepts(grammar, "123", kind)
    assert not accepts(grammar, "12", kind) and not accepts(grammar, "x123", kind)


def test_a_choice_is_one_of_its_texts_whatever_they_contain(kind):
    texts = ["yes", "yesterday", 'say "no"\n', "日本語 \\ 👩", ""]
    for text in texts:
        assert accepts(Grammar.choice(texts), text, kind)
    assert not accepts(Grammar.choice(texts), "yester", kind)


def test_lark_and_gbnf_say_the_same():
    lark = Grammar.lark('start: "a" rest\nrest: /[0-9]+/ | "b" rest')
    gbnf = Grammar.lark('root ::= "a" rest\nrest ::= [0-9]+ | "b" rest')
    for grammar in (lark, gbnf):
        assert accepts(grammar, "abb17") and not accepts(grammar, "abb")
    assert accepts(Grammar.lark('start: "x ::= y"'), "x ::= y"), "no GBNF for its letters"


def test_free_text_goes_on_with_a_tag_where_a_trigger_appears(kind):
    grammar = Grammar.structural_tag(CALLS)
    for text in ("", "just talk", ADD, f"first {ADD} and then{NOW}!"):
        assert accepts(grammar, text, kind)
    assert not accepts(grammar, "what <fn=sub>", kind)
    assert not accepts(grammar, 'so <fn=add>{"x": "y"}</fn>', kind)
    assert not accepts(grammar, 'so <fn=add>{"x": 1}', kind)


def test_tags_may_be_demanded_and_limited_to_one(kind):
    def tags(**options: bool) -> Grammar:
        return Grammar.structural_tag(
            StructuralTags(triggers=CALLS.triggers, structures=CALLS.structures, **options)
        )

    assert not accepts(tags(at_least_one=True), "no", kind)
    assert accepts(tags(at_least_one=True), f"{ADD} {NOW}", kind)
    assert accepts(tags(stop_after_first=True), "no", kind)
    assert accepts(tags(stop_after_first=True), f"so {ADD}", kind)
    assert not accepts(tags(stop_after_first=True), f"{ADD}{NOW}", kind)
    assert accepts(tags(at_least_one=True, stop_after_first=True), NOW, kind)
    assert not accepts(tags(at_least_one=True, stop_after_first=True), f"{NOW} ", kind)


def test_a_special_token_in_a_tag_is_the_token_and_not_its_text():
    tokenizer = TOKENIZERS["byte_fallback"]
    special = tokenizer.special_tokens["<s>"]
    grammar = Grammar.structural_tag(
        StructuralTags(
            triggers=["<s>"],
            structures=[StructuralTag(begin="<s>go ", schema={"const": 1}, end="<unk>")],
        )
    )
    go = tokenizer.encode_within("go 1")
    matcher = matcher_of(grammar, "byte_fallback")
    ids = [*tokenizer.encode_within("ok "), special, *go, tokenizer.special_tokens["<unk>"]]
    assert matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()
    mixed = StructuralTags(
        triggers=["<s>{"], structures=[StructuralTag(begin="<s>{a", schema={"const": 1})]
    )
    matcher = matcher_of(Grammar.structural_tag(mixed), "byte_fallback")
    ids = [*tokenizer.encode_within("ok{"), special, *tokenizer.encode_within("{a1")]
    assert matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()
    spelled_out = matcher_of(grammar, "byte_fallback")
    as_text = tokenizer.encode_within("<s>to")
    assert spelled_out.try_consume_tokens(as_text) == len(as_text), "as text it means nothing"


def test_a_grammar_may_hold_only_behind_a_word(kind):
    grammar = Grammar.choice(["yes", "no"], after="</think>")
    assert accepts(grammar, "well, maybe not</think>\n\nno", kind)
    assert accepts(grammar, "</think>yes", kind)
    assert not accepts(grammar, "yes", kind)
    assert not accepts(grammar, "hm</think> perhaps", kind)


def test_a_grammar_may_hold_only_behind_a_special_token():
    tokenizer = TOKENIZERS["byte_level"]
    matcher = matcher_of(Grammar.regex("[0-9]+", after="<s>"), "byte_level")
    ids = [*tokenizer.encode_within("hm "), tokenizer.special_tokens["<s>"]]
    assert matcher.try_consume_tokens(ids) == len(ids)
    assert matcher.try_consume_tokens(tokenizer.encode_within("x")) == 0
    assert matcher.try_consume_tokens(tokenizer.encode_within("7")) == 1


@pytest.mark.parametrize(
    "grammar, words",
    [
        (Grammar.json_schema("{", param="guided_json"), "guided_json: Input data was truncated"),
        (Grammar.json_schema("true"), "Expected `object`"),
        (Grammar.json_schema('{"a": ' * 40 + "1" + "}" * 40), "nests deeper than 32 levels"),
        (Grammar.json_schema({"minProperties": 2}), "minProperties 2 cannot be enforced"),
        (Grammar.choice([]), "offers no choice"),
        (Grammar(kind="choice", text="[1]"), "Expected `str`"),
        (Grammar.lark('root ::= "a" missing'), "no GBNF grammar: Rule 'missing' not found"),
        (Grammar.lark("root ::= " + "(" * 5000 + '"a"' + ")" * 5000), "no GBNF grammar"),
        (Grammar.structural_tag("{}"), "missing required field `triggers`"),
        (
            Grammar.structural_tag(
                StructuralTags(triggers=["<a"], structures=[StructuralTag(begin="<b", schema={})])
            ),
            "begins with 0 of the triggers",
        ),
        (
            Grammar.structural_tag(
                StructuralTags(
                    triggers=["<a", "<b"], structures=[StructuralTag(begin="<a", schema={})]
                )
            ),
            "No structure begins with '<b'",
        ),
    ],
    ids=lambda value: value.kind if isinstance(value, Grammar) else "",
)
def test_what_is_no_grammar_of_its_kind_is_refused(grammar, words):
    with pytest.raises(InvalidRequest, match=words) as refusal:
        guidance(grammar, {}, max_depth=32)
    assert refusal.value.param == grammar.param


def test_the_required_may_be_counted_and_one_property_too():
    for schema in (
        {"minProperties": 2, "required": ["a", "b"]},
        {"minProperties": 1},
        {"properties": {"minProperties": {"type": "integer"}}},
    ):
        assert accepts(Grammar.json_schema({"type": "object", **schema}), '{"a": 1, "b": 2}')


def test_a_schema_too_deep_for_llguidance_is_refused_whatever_our_limit():
    deep = Grammar.json_schema('{"items":' * 140 + "{}" + "}" * 140)
    with pytest.raises(InvalidRequest, match="recursion limit"):
        guidance(deep, {}, max_depth=1000)
