"""Grammars on their way to the engine: compiled beside its loop, kept, refused within limits."""

import os
import re
import signal
import threading
from pathlib import Path

import pytest

from penstock import LLM
from penstock.engine.engine import Engine
from penstock.vocabulary.errors import InvalidRequest, SettingsError
from penstock.vocabulary.grammar import Grammar
from penstock.vocabulary.messages import Cancel, Output, Request
from penstock.vocabulary.sampling_params import SamplingParams
from tests.engine.test_settings import resolved
from tests.engine.tiny_engine import make_engine, run, tokens
from tests.engine.tiny_writers import make_tiny_writer
from tests.tiny_models import make_tiny_checkpoint

DIGITS = Grammar.regex("[0-9]{4}")
FREE = SamplingParams(max_tokens=30, ignore_eos=True, seed=1)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory) -> Path:
    return make_tiny_writer("byte_level", tmp_path_factory.mktemp("writer"))


@pytest.fixture(scope="module")
def engine(model_dir) -> Engine:
    return make_engine(model_dir, max_grammar_chars=40_000, grammar_timeout_s=1.0)


def request(request_id: str, grammar: Grammar | None = None, **options) -> Request:
    params = SamplingParams(max_tokens=30, seed=1, grammar=grammar, **options)
    return Request(request_id=request_id, prompt_token_ids=[40, 41], sampling=params)


def outcome(engine: Engine, grammar: Grammar) -> Output:
    """What comes of a request with this grammar, last of all."""
    return run(engine, {"r": ([40, 41], SamplingParams(max_tokens=30, grammar=grammar))})["r"][0][
        -1
    ]


class Gate:
    """Holds the compiling thread up until it is opened."""

    def __init__(self, engine: Engine) -> None:
        self._opened = threading.Event()
        engine.grammars._thread.submit(self._opened.wait)

    def open(self) -> None:
        self._opened.set()


def test_a_request_waits_for_its_grammar_while_others_go_on(engine):
    gate = Gate(engine)
    grammar = Grammar.regex("[a-c]{3}")
    engine.add(request("patient", grammar))
    assert not engine.has_work and engine.stats().num_waiting == 1
    engine.add(request("quick"))
    written = []
    while engine.has_work:
        written += engine.step()
    assert {output.request_id for output in written} == {"quick"}
    assert len(tokens(written)) == 30
    gate.open()
    engine.wait()
    while engine.has_work:
        written += engine.step()
    patient = [output for output in written if output.request_id == "patient"]
    assert patient[-1].finish_reason == "stop" and len(tokens(patient)) == 4
    assert engine.stats().num_waiting == 0


def test_a_grammar_for_which_nobody_waits_any_more_keeps_nobody_waiting(engine):
    gate, abandoned = Gate(engine), Grammar.regex("[g-i]{3}")
    compiled = engine.stats().num_grammars_compiled
    engine.add(request("one", abandoned))
    engine.add(request("other", abandoned))
    engine.add(request("patient", Grammar.regex("[j-l]{3}")))
    engine.cancel(Cancel(request_id="one"))
    assert abandoned in engine.grammars._matchers
    engine.cancel(Cancel(request_id="other"))
    assert abandoned not in engine.grammars._matchers
    gate.open()
    engine.wait()
    while engine.has_work:
        engine.step()
    assert engine.stats().num_grammars_compiled == compiled + 1


def test_whoever_waits_for_the_engine_is_told_when_a_grammar_is_ready(engine):
    told = threading.Event()
    engine.grammars.on_ready = told.set
    try:
        engine.add(request("r", Grammar.regex("x")))
        assert told.wait(20) and engine.has_work
        while engine.has_work:
            engine.step()
    finally:
        engine.grammars.on_ready = lambda: None


def test_a_request_cancelled_while_it_waits_is_never_computed(engine):
    gate = Gate(engine)
    engine.add(request("gone", Grammar.regex("[d-f]{3}")))
    engine.cancel(Cancel(request_id="gone"))
    steps = engine.stats().num_steps
    gate.open()
    assert engine.stats().num_waiting == 0
    engine.grammars.of(Grammar.regex("[d-f]{3}")).result()
    assert not engine.has_work and engine.stats().num_steps == steps


def test_a_grammar_is_compiled_once(engine):
    before = engine.stats()
    for _ in range(3):
        outcome(engine, DIGITS)
    after = engine.stats()
    assert after.num_grammars_compiled == before.num_grammars_compiled + 1
    assert after.num_grammars_reused == before.num_grammars_reused + 2


def test_only_so_many_compiled_grammars_are_kept(model_dir):
    engine = make_engine(model_dir, kept_grammars=2)
    for pattern in ("a", "b", "a", "c", "a", "b"):
        outcome(engine, Grammar.regex(pattern))
    assert len(engine.grammars._matchers) == 2
    assert engine.stats().num_grammars_compiled == 4  # a, b, c and b again


@pytest.mark.parametrize(
    "grammar, words",
    [
        (Grammar.regex("(", param="guided_regex"), "guided_regex: .*unclosed group"),
        (Grammar.json_schema('{"type": "strin"}'), "strin"),
        (Grammar.json_schema({"not": {}}), "Unimplemented keys"),
        (Grammar.json_schema({"$ref": "file:///etc/passwd"}), "does not fetch"),
        (Grammar.json_schema({"$ref": "#"}), "There is no text that follows it"),
        (Grammar.lark("start: missing"), "missing"),
        (Grammar.regex(r"[^\s\S]"), "There is no text that follows it"),
        (Grammar.choice(["x" * 50_000]), "has 50,004 characters; this server takes 40,000"),
    ],
    ids=lambda value: value.text[:20] if isinstance(value, Grammar) else "",
)
def test_a_wrong_grammar_is_refused_in_the_words_of_who_knows(engine, grammar, words):
    for _ in range(2):  # the refusal is kept, too
        refusal = outcome(engine, grammar).refusal
        assert refusal is not None and re.search(words, refusal.message, re.DOTALL)
        assert refusal.param == grammar.param
    assert not engine.has_work


def reference_chain(length: int) -> dict:
    chain = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}]} for i in range(length)}
    return {"$defs": {**chain, f"a{length}": {"type": "object"}}, "$ref": "#/$defs/a0"}


HOSTILE = {
    "a chain of references that overflows the stack": Grammar.json_schema(reference_chain(900)),
    "a chain of rules that overflows the stack": Grammar.lark(
        "start: r0\n" + "\n".join(f"r{i}: r{i + 1}" for i in range(2500)) + '\nr2500: "a"'
    ),
    "an intersection that takes hours": Grammar.json_schema(
        {"allOf": [{"type": "integer", "multipleOf": 9973}, {"multipleOf": 9967}]}
    ),
    "a product of patterns that takes all memory": Grammar.json_schema(
        {
            "allOf": [
                {"type": "string", "pattern": f"(a|b)*{letter}(a|b){{{number}}}"}
                for number, letter in enumerate("ab" * 8)
            ]
        }
    ),
    "terminals that double fifty times": Grammar.lark(
        "start: R0\n" + "\n".join(f"R{i}: R{i + 1} R{i + 1}" for i in range(50)) + '\nR50: "a"'
    ),
    "terminals that are repeated a hundredfold ten times": Grammar.lark(
        "start: R0\n" + "\n".join(f"R{i}: R{i + 1}{{100}}" for i in range(10)) + '\nR10: "a"'
    ),
    "a rule that is repeated a billion times": Grammar.lark('start: "a"{1000000000}'),
    "brackets without end": Grammar.regex("(" * 15_000 + "a" + ")" * 15_000),
    "a schema deeper than the limit": Grammar.json_schema('{"a":' * 300 + "1" + "}" * 300),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_hostile_grammar_is_refused_and_hurts_nobody(engine, name):
    outputs = run(
        engine,
        {
            "hostile": ([40], SamplingParams(grammar=HOSTILE[name])),
            "bystander": ([50], FREE),
            "next": ([50], SamplingParams(grammar=DIGITS)),
        },
    )
    [output] = outputs["hostile"][0]
    assert output.refusal is not None and output.refusal.param == "grammar"
    assert len(output.refusal.message) < 500
    assert len(tokens(outputs["bystander"][0])) == 30
    assert outputs["next"][0][-1].finish_reason == "stop"
    assert not engine.has_work and engine.stats().num_blocks_used == 0


def test_a_refusal_is_kept_unless_it_had_to_do_with_the_machine(engine):
    hostile = HOSTILE["an intersection that takes hours"]
    refusal = engine.grammars.of(hostile)
    assert "more than 1 s" in str(refusal.exception())
    assert engine.grammars.of(hostile) is refusal
    engine.grammars.of(Grammar.regex("h")).result()
    os.kill(engine.grammars._checker._process.pid, signal.SIGKILL)
    unlucky = Grammar.regex("u")
    output = outcome(engine, unlucky)
    assert output.refusal is not None and "server's log" in output.refusal.message
    assert outcome(engine, unlucky).finish_reason == "stop"


def test_a_grammar_that_becomes_too_complex_on_the_way_ends_the_request_and_no_other(engine):
    late = Grammar.regex("a" * 60 + r"(\w{1,1000}){1,1000}")
    outputs = run(
        engine,
        {
            "r": ([40], SamplingParams(max_tokens=500, seed=1, n=2, grammar=late)),
            "other": ([40], FREE),
        },
    )
    assert len(tokens(outputs["other"][0])) == 30
    refusal = outputs["r"][0][-1].refusal
    assert refusal is not None and "grammar: " in refusal.message
    assert engine.stats().num_blocks_used == 0 and not engine.has_work


def test_a_model_without_a_tokenizer_or_an_end_token_can_follow_no_grammar(model_dir, tmp_path):
    bare = make_engine(make_tiny_checkpoint("llama", tmp_path))
    refusal = outcome(bare, DIGITS).refusal
    assert refusal is not None and "no tokenizer.json" in refusal.message
    endless = make_engine(model_dir)
    endless.grammars._end_token_ids = []
    endless.grammars._compiler = endless.grammars._thread.submit(
        endless.grammars._make_compiler, None
    )
    refusal = outcome(endless, DIGITS).refusal
    assert refusal is not None and "no end-of-text token" in refusal.message


def test_a_wrong_grammar_is_refused_by_llm_before_anything_is_computed():
    llm = LLM(kv_cache_gib=0.05)
    steps = llm.engine.stats().num_steps
    good, bad = SamplingParams(grammar=DIGITS), SamplingParams(grammar=Grammar.regex("["))
    with pytest.raises(InvalidRequest, match="unclosed character class"):
        llm.generate(["a", "b"], [good, bad])
    assert llm.engine.stats().num_steps == steps
    [result] = llm.generate("Year: ", good, use_tqdm=False)
    assert re.fullmatch("[0-9]{4}", result.outputs[0].text)
    assert result.outputs[0].finish_reason == "stop"


@pytest.mark.parametrize(
    "name",
    [
        "max_grammar_chars",
        "max_grammar_depth",
        "grammar_timeout_s",
        "grammar_memory_mib",
        "kept_grammars",
    ],
)
def test_a_limit_of_nothing_is_no_limit(name):
    with pytest.raises(SettingsError, match=name):
        resolved(**{name: 0})
