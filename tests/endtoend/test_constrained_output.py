"""Constrained output through every door, with real clients and the embedded model."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum

import openai
import pytest
from pydantic import BaseModel, Field

from tests.endtoend.commands import typed

MODEL = "penstock-default"
ASK = [{"role": "user", "content": "Write a small record."}]


def hostile(factor: int) -> dict:
    """A schema that no one can compile; refusals are kept, so each test brings one of its own."""
    return {"allOf": [{"type": "integer", "multipleOf": factor}, {"multipleOf": 9967}]}


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


class Item(BaseModel, extra="forbid"):
    colour: Colour
    count: int = Field(ge=0, le=99)


class Record(BaseModel, extra="forbid"):
    name: str = Field(max_length=12)
    items: list[Item] = Field(max_length=2)
    comment: None


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def test_the_openai_client_parses_what_it_asked_for(client):
    answer = client.chat.completions.parse(
        model=MODEL, messages=ASK, response_format=Record, max_tokens=400, seed=1
    )
    assert answer.choices[0].finish_reason == "stop"
    assert isinstance(answer.choices[0].message.parsed, Record)


def test_a_stream_brings_the_same_text_and_counts_the_same_tokens(client):
    options = {
        "model": MODEL,
        "prompt": "data = ",
        "max_tokens": 100,
        "seed": 3,
        "extra_body": {"guided_json": Record.model_json_schema()},
    }
    whole = client.completions.create(**options)
    *pieces, last = client.completions.create(
        **options, stream=True, stream_options={"include_usage": True}
    )
    assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    with_logprobs = client.completions.create(**options, logprobs=1)
    assert with_logprobs.choices[0].text == whole.choices[0].text
    assert len(with_logprobs.choices[0].logprobs.tokens) == whole.usage.completion_tokens


def test_a_stop_string_ends_the_text_before_the_grammar_does(client):
    answer = client.completions.create(
        model=MODEL,
        prompt="#",
        max_tokens=60,
        stop="lazy",
        extra_body={"guided_choice": ["the quick fox and the lazy dog are friends"]},
    )
    assert answer.choices[0].text == "the quick fox and the "
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    "fields, pattern",
    [
        ({"guided_regex": "[A-F0-9]{6}"}, "[A-F0-9]{6}"),
        ({"guided_choice": ["yes", "no"]}, "yes|no"),
        ({"guided_grammar": 'root ::= "a" [bc]{3}'}, "a[bc]{3}"),
        ({"structured_outputs": {"choice": ["x y", "z"]}}, "x y|z"),
        ({"grammar": {"kind": "lark", "text": "start: /[0-9]{3}/"}}, "[0-9]{3}"),
    ],
)
def test_the_fields_of_vllm_are_honoured_on_both_routes(client, fields, pattern):
    completion = client.completions.create(
        model=MODEL, prompt="#", max_tokens=20, extra_body=fields
    )
    assert re.fullmatch(pattern, completion.choices[0].text)
    chat = client.chat.completions.create(
        model=MODEL, messages=ASK, max_tokens=20, extra_body=fields
    )
    assert re.fullmatch(pattern, chat.choices[0].message.content)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fields, param, words",
    [
        ({"guided_regex": "("}, "guided_regex", "unclosed group"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"uniqueItems": True}},
                }
            },
            "response_format",
            "uniqueItems",
        ),
        ({"guided_json": hostile(9973)}, "guided_json", "more than (5 s|512 MiB)"),
    ],
    ids=["wrong", "unsupported", "hostile"],
)
def test_a_bad_grammar_is_a_bad_request_and_nothing_else_happens(
    served, client, fields, param, words, stream
):
    pid = served.engine_pid()
    with pytest.raises(openai.BadRequestError, match=words) as refusal:
        client.completions.create(model=MODEL, prompt="#", extra_body=fields, stream=stream)
    assert refusal.value.param == param
    assert served.engine_pid() == pid and served.is_ready()


def test_others_are_answered_while_a_hostile_grammar_is_tried_out(client):
    def ask(**fields) -> str:
        answer = client.completions.create(model=MODEL, prompt="#", max_tokens=5, **fields)
        return answer.choices[0].text

    with ThreadPoolExecutor() as pool:
        refused = pool.submit(ask, extra_body={"guided_json": hostile(9949)})
        assert [ask() for _ in range(3)] and not refused.done()
        with pytest.raises(openai.BadRequestError):
            refused.result()


def test_the_server_counts_grammars_and_forced_tokens(served, client):
    def counts() -> list[float]:
        names = ("grammars_compiled", "grammar_cache_hits", "forced_tokens")
        return [served.metric(f"{name}_total") for name in names]

    before = counts()
    for _ in range(2):
        client.completions.create(
            model=MODEL,
            prompt="#",
            max_tokens=40,
            extra_body={"guided_choice": ["a rather long sentence that nobody chose"]},
        )
    compiled, reused, forced = (b - a for a, b in zip(before, counts(), strict=True))
    assert (compiled, reused) == (1, 1) and forced > 10


def test_generate_takes_a_grammar_from_flags_and_files(tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(Record.model_json_schema()))
    done = typed(
        "generate", "--seed", "1", "--max-tokens", "300", "--json-schema", str(schema), "data = "
    )
    assert done.returncode == 0, done.stderr
    Record.model_validate_json(done.stdout)
    done = typed("generate", "--choice", "left", "--choice", "right", "turn ")
    assert done.stdout.strip() in ("left", "right")


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--regex", "("], "--regex: .*unclosed group"),
        (["--json-schema", "/no/such/file"], "--json-schema: /no/such/file cannot be read"),
        (["--regex", "a", "--choice", "b"], "--regex and --choice exclude each other"),
    ],
)
def test_generate_says_which_flag_is_wrong(flags, words):
    done = typed("generate", *flags, "x")
    assert done.returncode != 0
    assert re.search(words, " ".join(done.stderr.split()))
