"""Latency and throughput of a model in this process."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.bench.in_process import latency_of
from penstock.cli.app import app
from penstock.vocabulary.errors import ContextTooLong, SettingsError
from tests.bench.timings import timing


def bench(tmp_path: Path, *arguments: str) -> dict:
    file = tmp_path / "out.json"
    done = CliRunner().invoke(app, ["bench", *arguments, "--json", str(file)])
    if done.exception is not None:
        raise done.exception
    return json.loads(file.read_text())


def test_latency_has_the_median_of_the_runs():
    runs = [timing(0.1, (0.1, 0.3)), timing(0.5, (0.2, 0.2)), timing(0.2, (0.6, 0.6))]
    found = latency_of(runs, prompt_len=512)
    assert found.first_token_s == pytest.approx(0.2)
    assert found.inter_token_p50_s == pytest.approx(0.2)
    assert found.tokens_per_s == pytest.approx(5.0)
    assert found.end_to_end_s == pytest.approx(0.9)


def test_latency_runs_every_length_as_often_as_asked(tmp_path):
    lengths = ("--prompt-len", "8", "--prompt-len", "20", "--output-len", "5")
    document = bench(tmp_path, "latency", *lengths, "--repeats", "2")
    assert [each["prompt_len"] for each in document["results"]] == [8, 20]
    for each in document["results"]:
        assert [run["num_output_tokens"] for run in each["runs"]] == [5, 5]
        assert [len(run["arrivals_s"]) for run in each["runs"]] == [5, 5]
    assert document["settings"]["prompt_lens"] == [8, 20]
    assert document["engine"]["model"] == "penstock-default"


def test_throughput_answers_the_whole_workload_to_its_full_length(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(
        '{"prompt": [9, 10, 11], "max_tokens": 4}\n{"prompt": "import os", "max_tokens": 6}\n'
    )
    document = bench(tmp_path, "throughput", "--workload", str(path), "--repeats", "2")
    assert [each["num_output_tokens"] for each in document["results"]] == [10, 10]
    assert {each["num_requests"] for each in document["results"]} == {2}
    assert document["medians"]["output_tokens_per_s"] > document["medians"]["requests_per_s"] > 0


def test_a_prompt_longer_than_the_context_is_refused(tmp_path):
    with pytest.raises(ContextTooLong):
        bench(tmp_path, "latency", "--prompt-len", "5000")


@pytest.mark.parametrize("wrong", [("--output-len", "1"), ("--prompt-len", "0"), ("--seed", "-1")])
def test_what_cannot_be_measured_is_refused(tmp_path, wrong):
    with pytest.raises(SettingsError):
        bench(tmp_path, "latency", *wrong)
