"""The laws, for sequences that follow a grammar: nothing but the request decides what comes of it,
and the engine that takes forced tokens together writes what the one writes that takes them singly.
"""

import re
from pathlib import Path

import msgspec
import pytest

from penstock.engine.engine import Engine
from penstock.text.tokenizer import Tokenizer
from penstock.vocabulary.grammar import Grammar, StructuralTag, StructuralTags
from penstock.vocabulary.messages import FinishReason, Output
from penstock.vocabulary.sampling_params import SamplingParams
from tests.engine.tiny_engine import make_engine, run, tokens
from tests.engine.tiny_writers import KINDS, make_tiny_writer

PROMPT = "the quick brown fox jumps over the lazy dog. The end! and then a naïve été,"
PERSON = Grammar.json_schema(
    {
        "x-guidance": {"whitespace_pattern": " "},  # a random model would fill pages with it
        "type": "object",
        "properties": {
            "name_of_the_person": {"type": "string", "maxLength": 8},
            "year_of_birth": {"type": "integer", "minimum": 1900, "maximum": 2026},
            "is_a_teapot": {"type": "boolean"},
        },
        "required": ["name_of_the_person", "year_of_birth", "is_a_teapot"],
        "additionalProperties": False,
    }
)
DATE = Grammar.regex("[0-9]{4}-[0-9]{2}-[0-9]{2}")
GREEDY = SamplingParams(temperature=0, max_tokens=200, grammar=PERSON)
DRAWN = SamplingParams(temperature=1, top_p=0.95, max_tokens=200, seed=7, grammar=PERSON)
FREE = SamplingParams(temperature=1, max_tokens=40, seed=3, ignore_eos=True)


class Writer:
    """A tiny model, and what its engines write."""

    def __init__(self, model_dir: Path) -> None:
        self.model_dir = model_dir
        self.tokenizer = Tokenizer.from_dir(model_dir)
        self.prompt = self.tokenizer.encode(PROMPT)
        self.fast = self.engine()
        self.slow = self.engine(fast_forward=False)

    def engine(self, *, fast_forward: bool = True, **options) -> Engine:
        engine = make_engine(self.model_dir, **options)
        engine.fast_forward = fast_forward
        return engine

    def outputs(self, params: SamplingParams, engine: Engine | None = None) -> list[Output]:
        return run(engine or self.fast, {"r": (self.prompt, params)})["r"][0]

    def text(self, params: SamplingParams, engine: Engine | None = None) -> str:
        return self.tokenizer.decode(tokens(self.outputs(params, engine)))


@pytest.fixture(scope="module", params=KINDS)
def writer(request, tmp_path_factory) -> Writer:
    return Writer(make_tiny_writer(request.param, tmp_path_factory.mktemp("writer")))


@pytest.fixture(scope="module", params=[GREEDY, DRAWN], ids=["greedy", "drawn"])
def params(request) -> SamplingParams:
    return request.param


@pytest.fixture(scope="module")
def alone(writer) -> dict[float, list[int]]:
    """What an engine writes that has nothing else to do and takes forced tokens singly."""
    return {
        params.temperature: tokens(writer.outputs(params, writer.slow))
        for params in (GREEDY, DRAWN)
    }


def test_forced_tokens_change_nothing_but_the_number_of_steps(writer, params, alone):
    slow, fast = writer.engine(fast_forward=False), writer.engine()
    assert tokens(writer.outputs(params, slow)) == alone[params.temperature]
    assert tokens(writer.outputs(params, fast)) == alone[params.temperature]
    assert slow.stats().num_forced_tokens == 0
    saved = slow.stats().num_steps - fast.stats().num_steps
    assert saved == fast.stats().num_forced_tokens > 20
    assert slow.stats().num_generated_tokens == fast.stats().num_generated_tokens


def test_batched_equals_alone(writer, params, alone):
    requests = {
        "free": (writer.prompt[:3], FREE),
        "mine": (writer.prompt, params),
        "date": (writer.prompt[:9], msgspec.structs.replace(DRAWN, grammar=DATE)),
        "same": (writer.prompt[:2], msgspec.structs.replace(DRAWN, seed=1)),
    }
    together = run(writer.engine(token_budget=30), requests)
    assert tokens(together["mine"][0]) == alone[params.temperature]
    apart = run(writer.fast, {"free": requests["free"]})
    assert tokens(together["free"][0]) == tokens(apart["free"][0])


def test_chunks_of_any_size_and_a_cached_prefix_change_nothing(writer, params, alone):
    for budget in (2, 5):
        engine = writer.engine(token_budget=budget, max_num_seqs=1)
        for _ in range(2):
            assert tokens(writer.outputs(params, engine)) == alone[params.temperature]
        assert engine.stats().prefix_hits > 0


def test_a_preempted_sequence_equals_an_undisturbed_one(writer, params, alone):
    least = -(-(len(writer.prompt) + 200) // 16)
    engine = writer.engine(num_blocks=least, promise_tokens=2, prefix_caching=False)
    other = (writer.prompt[:9], msgspec.structs.replace(FREE, max_tokens=200))
    outputs = run(engine, {"mine": (writer.prompt, params), "other": other, "third": other})
    assert engine.stats().num_preemptions > 0
    assert tokens(outputs["mine"][0]) == alone[params.temperature]


def test_several_completions_each_follow_the_grammar_in_their_own_way(writer):
    several = msgspec.structs.replace(DRAWN, n=4)
    outputs = run(writer.fast, {"r": (writer.prompt, several)})["r"]
    texts = [writer.tokenizer.decode(tokens(outputs[index])) for index in range(4)]
    assert len(set(texts)) == 4
    for text in texts:
        assert msgspec.json.decode(text).keys() == {
            "name_of_the_person",
            "year_of_birth",
            "is_a_teapot",
        }
    slow = run(writer.slow, {"r": (writer.prompt, several)})["r"]
    assert {i: tokens(each) for i, each in slow.items()} == {
        i: tokens(each) for i, each in outputs.items()
    }


def test_forced_text_is_split_into_the_tokens_that_the_model_knows(writer):
    """The tokenizer, given the text as a whole, splits it the same way."""
    text = "the lazy dog jumps over the end"
    params = SamplingParams(temperature=1, max_tokens=100, grammar=Grammar.choice([text]))
    *spelled, end = tokens(writer.outputs(params))
    assert spelled == writer.tokenizer.encode_within(text)
    assert end == writer.tokenizer.special_tokens["</s>"]


def test_a_complete_text_ends_with_the_end_token_and_the_reason_is_stop(writer):
    [*_, last] = outputs = writer.outputs(DRAWN)
    assert last.finish_reason is FinishReason.STOP and last.stop_token_id is None
    assert tokens(outputs)[-1] == writer.tokenizer.special_tokens["</s>"]


@pytest.mark.parametrize("pace", ["fast", "slow"])
def test_a_text_is_cut_where_max_tokens_says_and_complete_if_only_its_end_token_is_missing(
    writer, alone, pace
):
    complete, engine = len(alone[0.0]), getattr(writer, pace)
    for max_tokens in (*range(1, complete, 9), *range(complete - 12, complete + 2)):
        shorter = msgspec.structs.replace(GREEDY, max_tokens=max_tokens)
        outputs = writer.outputs(shorter, engine)
        assert tokens(outputs) == alone[0.0][:max_tokens]
        is_whole = max_tokens >= complete - 1
        assert outputs[-1].finish_reason is (FinishReason.STOP if is_whole else FinishReason.LENGTH)
        assert all(output.finish_reason is None for output in outputs[:-1])
        assert engine.stats().num_blocks_used == 0


def test_with_logprobs_every_token_has_the_model_s_own_forced_ones_too(writer, params, alone):
    asked = msgspec.structs.replace(params, logprobs=2)
    engine = writer.engine()
    outputs = writer.outputs(asked, engine)
    assert tokens(outputs) == alone[params.temperature]
    entries = [entry for output in outputs for entry in output.logprobs]
    assert [entry.token_id for entry in entries] == tokens(outputs)
    assert engine.stats().num_forced_tokens == 0
    assert min(entry.logprob for entry in entries) < -2, "a forced token that nothing suggested"
    whole = [*writer.prompt, *tokens(outputs)]
    check = SamplingParams(max_tokens=1, prompt_logprobs=2)
    [output, *_] = run(writer.engine(token_budget=400), {"r": (whole, check)})["r"][0]
    read = output.prompt_logprobs[len(writer.prompt) - 1 :]
    for entry, expected in zip(entries, read, strict=True):
        assert entry.token_id == expected.token_id
        assert entry.logprob == pytest.approx(expected.logprob, abs=1e-4)


def test_a_stop_token_ends_the_text_within_the_grammar(writer):
    hyphen = writer.tokenizer.encode_within("-")[0]
    stopping = SamplingParams(
        temperature=1, seed=1, max_tokens=50, grammar=DATE, stop_token_ids=[hyphen]
    )
    outputs = writer.outputs(stopping)
    assert outputs[-1].finish_reason is FinishReason.STOP
    assert outputs[-1].stop_token_id == hyphen
    assert re.fullmatch("[0-9]{4}-", writer.tokenizer.decode(tokens(outputs)))


def test_min_tokens_holds_the_end_back_for_as_long_as_the_grammar_knows_something_else(writer):
    digits = Grammar.regex("[0-9]{1,30}")
    short = SamplingParams(
        temperature=1, seed=1, grammar=digits, max_tokens=60, logit_bias={writer.prompt[0]: 0}
    )
    lens = []
    for min_tokens in (0, 12, 30, 60):
        text = writer.text(msgspec.structs.replace(short, min_tokens=min_tokens))
        assert re.fullmatch("[0-9]{1,30}", text)
        lens.append(len(text))
    assert lens[1] >= 12 and lens[2:] == [30, 30], "the grammar has the last word"


def test_a_stop_token_that_is_the_only_way_on_does_not_end_the_text_before_min_tokens(writer):
    hyphen = writer.tokenizer.encode_within("-")[0]
    params = SamplingParams(
        temperature=1, seed=1, grammar=DATE, stop_token_ids=[hyphen], min_tokens=6, max_tokens=50
    )
    assert re.fullmatch("[0-9]{4}-[0-9]{2}-", writer.text(params))


def test_penalties_and_filters_choose_among_what_the_grammar_allows(writer):
    letters = Grammar.regex("[a-z]{8}")
    common = {"grammar": letters, "max_tokens": 50, "seed": 5}
    for options in (
        {"temperature": 0, "repetition_penalty": 5.0},
        {"temperature": 2, "top_k": 1},
        {"temperature": 2, "top_p": 0.01, "presence_penalty": 2},
        {"temperature": 1, "typical_p": 0.2, "frequency_penalty": -2},
        {"temperature": 1, "min_p": 0.99},
    ):
        assert re.fullmatch("[a-z]{8}", writer.text(SamplingParams(**common, **options)))
    bias = {writer.tokenizer.encode_within("z")[0]: 100.0}
    assert writer.text(SamplingParams(**common, logit_bias=bias)) == "z" * 8


def test_a_tool_s_call_follows_its_schema_in_the_middle_of_free_text(writer):
    """What server code attaches to a chat request; the model is made to begin a call at once."""
    calls = StructuralTags(
        triggers=["<tool>"],
        structures=[
            StructuralTag(
                begin=f'<tool>{{"name": "{name}", "arguments": ',
                schema={
                    "type": "object",
                    "properties": {"city": {"enum": ["Oslo", "Rome"]}, "days": {"type": "integer"}},
                    "required": ["city"],
                    "additionalProperties": False,
                },
                end="}</tool>",
            )
            for name in ("weather", "forecast")
        ],
        at_least_one=True,
        stop_after_first=True,
    )
    params = SamplingParams(seed=2, max_tokens=200, grammar=Grammar.structural_tag(calls))
    text = writer.text(params)
    call = msgspec.json.decode(text.removeprefix("<tool>").removesuffix("</tool>"))
    assert call["name"] in ("weather", "forecast") and call["arguments"]["city"] in ("Oslo", "Rome")
    assert text == writer.text(params, writer.slow)


def test_what_is_forced_needs_no_opinion_of_the_model(writer):
    engine = writer.engine()
    params = SamplingParams(
        temperature=0, max_tokens=40, grammar=Grammar.regex("[ab]cdefghij"), logprobs=0
    )
    expected = writer.text(params, engine)
    logits, calls = engine.runner.decoder.logits, iter([1.0])
    engine.runner.decoder.logits = lambda hidden: logits(hidden) * next(calls, float("nan"))
    assert writer.text(params, engine) == expected
    assert re.fullmatch("[ab]cdefghij", expected)
