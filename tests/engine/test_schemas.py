"""Every text that was not cut validates against its schema, whoever writes it.

Random weights are the hardest test: they know no JSON, and take every way that is left open.
"""

import json
from collections import Counter

import jsonschema
import pytest

from penstock import LLM
from penstock.text.tokenizer import Tokenizer
from penstock.vocabulary.grammar import Grammar
from penstock.vocabulary.messages import FinishReason
from penstock.vocabulary.sampling_params import SamplingParams
from tests.engine.tiny_engine import make_engine, run, tokens
from tests.engine.tiny_writers import KINDS, make_tiny_writer

SHORT = {"type": "string", "maxLength": 6}
POINT = {
    "type": "object",
    "properties": {"x": {"type": "number"}, "y": {"type": "number"}},
    "required": ["x", "y"],
    "additionalProperties": False,
}
SCHEMAS = [
    {"type": "integer"},
    {"type": "integer", "minimum": -7, "exclusiveMaximum": 300},
    {"type": "integer", "multipleOf": 7},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 1.5},
    {"type": ["integer", "null", "boolean"]},
    SHORT,
    {"type": "string", "minLength": 2, "maxLength": 3},
    {"type": "string", "pattern": "^[a-c]{1,9}$"},
    {"type": "string", "pattern": "^\\d{3}-\\w{2}$"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "time"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "format": "ipv4"},
    {"type": "string", "format": "ipv6"},
    {"enum": ["a", 1, None, {"x": [1, 2]}, 1.5, 'quo"te', "日本"]},
    {"const": {"a": "é\n", "b": []}},
    {"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 2}]},
    {"oneOf": [{"type": "integer"}, {"type": "string", "maxLength": 2}]},
    {"allOf": [{"type": "integer", "minimum": 5}, {"type": "integer", "maximum": 9}]},
    POINT,
    {"type": "array", "items": POINT, "minItems": 1, "maxItems": 2},
    {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
    {"type": "array", "prefixItems": [{"type": "integer"}, SHORT], "items": False, "minItems": 2},
    {"type": "object", "properties": {"a": SHORT, "b": {"type": "integer"}}, "required": ["b"]},
    {"type": "object", "properties": {'k"é\n': {"const": 1}}, "required": ['k"é\n']},
    {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 2},
    {
        "type": "object",
        "patternProperties": {"^x_[a-z]{1,3}$": {"type": "integer"}},
        "additionalProperties": False,
        "maxProperties": 2,
    },
    {
        "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
        "type": "object",
        "properties": {"node": {"$ref": "#/$defs/node"}, "v": {"type": "boolean"}},
        "required": ["v"],
        "additionalProperties": False,
    },
    {
        "oneOf": [
            {
                "type": "object",
                "properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}},
                "required": ["kind", "lives"],
            },
            {
                "type": "object",
                "properties": {"kind": {"const": "dog"}, "name": SHORT},
                "required": ["kind", "name"],
            },
        ]
    },
    {
        "type": "object",
        "properties": {
            "title": SHORT,
            "when": {"type": "string", "format": "date"},
            "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "maxItems": 3},
            "nested": {"type": "object", "properties": {"deep": {"type": ["null", "integer"]}}},
        },
        "required": ["title", "when", "tags", "nested"],
        "additionalProperties": False,
    },
    {"type": "object"},
    {"type": "string"},
    {},
]


def requests(prompt: list[int], seeds: range) -> dict[str, tuple[list[int], SamplingParams]]:
    """Each schema, by greedy and by drawn tokens, hot ones among them."""
    return {
        f"{number}-{seed}": (
            prompt,
            SamplingParams(
                temperature=(0.0, 1.0, 2.0)[seed % 3],
                seed=seed,
                max_tokens=300,
                grammar=Grammar.json_schema(schema),
            ),
        )
        for number, schema in enumerate(SCHEMAS)
        for seed in seeds
    }


def complaint(schema: dict, text: str) -> str | None:
    """What is wrong with a text that should validate, or None."""
    validator = jsonschema.Draft202012Validator
    text = text.replace('"0000-', '"2000-')  # a year to RFC 3339, but not to Python
    try:
        validator(schema, format_checker=validator.FORMAT_CHECKER).validate(json.loads(text))
    except (ValueError, jsonschema.ValidationError) as error:
        return f"{text!r}: {error}"
    return None


def test_the_schemas_are_schemas_and_complaints_are_made():
    for schema in SCHEMAS:
        jsonschema.Draft202012Validator.check_schema(schema)
    assert complaint({"type": "integer"}, "1.5") and complaint({}, "{") and not complaint({}, "1")


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_random_model_writes_validates_or_says_that_it_was_cut(kind, tmp_path):
    model_dir = make_tiny_writer(kind, tmp_path)
    tokenizer = Tokenizer.from_dir(model_dir)
    engine = make_engine(
        model_dir, num_blocks=2048, max_num_seqs=64, token_budget=128, kv_cache_gib=0.05
    )
    asked = requests(tokenizer.encode("the answer: "), range(6))
    outputs = run(engine, asked)
    ended: Counter[FinishReason] = Counter()
    for name, (_, params) in asked.items():
        [completion] = outputs[name].values()
        reason = completion[-1].finish_reason
        assert reason is not None, completion[-1].refusal
        ended[reason] += 1
        text = tokenizer.decode(tokens(completion))
        if reason is FinishReason.STOP:
            assert complaint(json.loads(params.grammar.text), text) is None
    assert ended[FinishReason.STOP] > 2 * ended[FinishReason.LENGTH] > 0


def test_what_the_embedded_model_writes_validates_or_says_that_it_was_cut():
    llm = LLM(kv_cache_gib=0.3)
    asked = requests(llm.tokenizer.encode("import json\n\ndata = "), range(3))
    prompts = [{"prompt_token_ids": prompt} for prompt, _ in asked.values()]
    results = llm.generate(prompts, [params for _, params in asked.values()], use_tqdm=False)
    num_whole = 0
    for result, (_, params) in zip(results, asked.values(), strict=True):
        [output] = result.outputs
        if output.finish_reason == "stop":
            num_whole += 1
            assert complaint(json.loads(params.grammar.text), output.text) is None
        else:
            assert output.finish_reason == "length" and len(output.token_ids) == 300
    assert num_whole > 0.8 * len(results)
