"""An engine that fails is reported with its error; it neither stops the others nor keeps them
waiting.
"""

from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.peers.engines import Contender, Engine, Weights, contenders
from benchmarks.peers.environments import Cache
from benchmarks.peers.measure import Entry, Limits, Run, measure, prepare
from benchmarks.peers.work import Extent, all_work

from penstock.vocabulary.errors import SettingsError

TINY = Extent(
    repeats=2, one_stream_len=4, prompt_lens=(8,), num_streams=3, streams_len=4, num_mixed=2
)

PATIENT = Limits()


def contender(weights: str, convert: tuple[str, ...] = (), **options: str) -> Contender:
    kind = Weights(name=weights, kind="int8", convert=convert)
    worker = options.get("worker", "tests.benchmarks.scripted_worker")
    return Contender(Engine(name="scripted", worker=worker, weights=(kind,)), kind)


def outcome(one: Contender, folder: Path, limits: Limits = PATIENT, extent: Extent = TINY) -> Entry:
    run = Run(
        name="today",
        works=all_work(100, extent),
        model=folder,
        cache=Cache(folder, threads=1),
        limits=limits,
    )
    return measure(one, run, lambda _: None)


def test_every_work_of_a_good_engine_has_a_figure(tmp_path):
    entry = outcome(contender("works"), tmp_path)
    assert entry.error == ""
    assert (entry.version, entry.settings) == ("1.0", {"weights": "works"})
    assert list(entry.figures) == ["one-stream", "prompt-8", "streams", "mixed"]
    assert all(figure.rate is not None for figure in entry.figures.values())
    assert [len(answers) for answers in entry.figures["one-stream"].rounds] == [2, 2]
    assert entry.ready_s is not None and entry.ready_s > 0
    assert entry.peak_bytes is not None and entry.peak_bytes > 5 * 2**20


def test_an_engine_that_does_not_start_is_reported_with_its_last_words(tmp_path):
    entry = outcome(contender("never-starts"), tmp_path)
    assert entry.error.startswith("ended (1) before it was ready")
    assert "no such instruction set" in entry.error
    assert entry.figures == {}


def test_an_engine_that_is_not_there_is_reported(tmp_path):
    entry = outcome(contender("works", worker="tests.benchmarks.no_such_worker"), tmp_path)
    assert "no_such_worker" in entry.error


def test_a_model_that_cannot_be_converted_is_reported(tmp_path):
    one = contender("works", convert=("{cache}/no-such-converter", "{model}"))
    assert "no-such-converter" in prepare(one, tmp_path, Cache(tmp_path, threads=1))
    assert "no-such-converter" in outcome(one, tmp_path).error


def test_an_engine_that_breaks_off_keeps_its_error_and_is_asked_no_more(tmp_path):
    figures = outcome(contender("breaks"), tmp_path).figures
    assert "MemoryError: too many of them" in figures["one-stream"].error
    assert figures["mixed"].error == "not tried after: one stream"


def test_an_engine_that_hangs_costs_no_more_than_the_limit(tmp_path):
    figures = outcome(contender("sleeps"), tmp_path, Limits(batch_s=0.2)).figures
    assert figures["one-stream"].error == "took more than 0.2 s before it answered"


def test_an_engine_that_ends_its_answers_early_has_no_figure(tmp_path):
    figures = outcome(contender("stops-early"), tmp_path).figures
    assert "1 tokens where 4 were asked for" in figures["one-stream"].error


def test_repeats_end_when_they_have_taken_long_enough(tmp_path):
    entry = outcome(contender("works"), tmp_path, Limits(repeats_s=0))
    assert len(entry.figures["one-stream"].rounds) == 1


def test_an_engine_too_slow_for_the_whole_mix_gets_a_smaller_one(tmp_path):
    entry = outcome(contender("works"), tmp_path, Limits(mixed_s=0), replace(TINY, num_mixed=30))
    assert entry.figures["mixed"].num_requests == 24


def test_weights_of_a_kind_follow_each_other_so_that_they_are_measured_close_in_time():
    kinds = [each.weights.kind for each in contenders([])]
    assert kinds == sorted(kinds, key=["int8", "int4", "float"].index)


def test_engines_are_chosen_by_name_or_with_their_weights():
    names = [str(each) for each in contenders(["penstock:int4", "llama.cpp"])]
    assert names == ["llama.cpp:q8_0", "penstock:int4", "llama.cpp:q4_0"]


def test_an_unknown_engine_is_refused_with_those_that_are_known():
    with pytest.raises(SettingsError, match=r"'lama'.*llama\.cpp:q8_0"):
        contenders(["lama"])
