"""`penstock bench serve` against servers that answer, refuse and die."""

import json
import socket
import threading
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from penstock.cli.app import app
from penstock.vocabulary.errors import NoSuchServer, Overloaded, PenstockError, SettingsError
from tests.bench.failing_server import dying_server
from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import listening

NO_WARMUP = ("--warmup", "0")
VOCABULARY = ("--vocab-size", "256")  # the scripted model's tokens are bytes


def bench(url, tmp_path, *arguments: str, expect: int = 0) -> list:
    """Run the command with eight requests; the results in its JSON."""
    file = tmp_path / "out.json"
    given = ("bench", "serve", "--url", url, "--num-requests", "8", "--json", str(file))
    done = CliRunner().invoke(app, [*given, *VOCABULARY, *arguments])
    if isinstance(done.exception, PenstockError):
        raise done.exception
    assert done.exit_code == expect, done.output
    return json.loads(file.read_text())["results"]


@pytest.fixture
def llm():
    return ScriptedLLM(Script("Hello!"))


def test_every_load_sends_every_request_and_all_are_answered(llm, tmp_path):
    with listening(llm) as url:
        one, four = bench(url, tmp_path, "--clients", "1", "--clients", "4", *NO_WARMUP)
    assert (one["clients"], four["clients"]) == (1, 4)
    for result in (one, four):
        assert result["summary"]["num_answered"] == 8
        assert result["summary"]["failures"] == {}
        assert {request["outcome"] for request in result["requests"]} == {"answered"}
        assert {request["num_output_tokens"] for request in result["requests"]} <= {4, 5, 6}
    assert len(llm.submissions) == 1 + 8 + 8  # the first one tries the server out


def test_clients_wait_for_their_answers(llm, tmp_path):
    with listening(llm) as url:
        [result] = bench(url, tmp_path, "--clients", "1", *NO_WARMUP)
    requests = result["requests"]
    for before, after in pairwise(requests):
        assert after["start_s"] >= before["start_s"] + before["end_s"]


def test_arrivals_at_a_rate_do_not_wait_for_answers(tmp_path):
    """Nobody is answered before all have asked, but for the one that tries the server out."""
    all_there = threading.Event()

    def script(request):
        if len(llm.in_flight) == 8:
            all_there.set()
        return Script(
            "Hello!", hangs_after=1 if len(llm.submissions) > 1 else None, until=all_there
        )

    llm = ScriptedLLM(script)
    with listening(llm) as url:
        [result] = bench(url, tmp_path, "--rate", "1000", *NO_WARMUP)
    last_start = max(request["start_s"] for request in result["requests"])
    assert (result["rate"], result["clients"]) == (1000, None)
    assert last_start < min(request["end_s"] for request in result["requests"])


def test_warm_up_requests_are_sent_but_not_counted(llm, tmp_path):
    with listening(llm) as url:
        [result] = bench(url, tmp_path, "--clients", "2", "--warmup", "3")
    assert len(llm.submissions) == 1 + 2 * 3 + 8
    assert result["summary"]["num_sent"] == 8


def test_requests_are_greedy_of_full_length_and_as_made_up(llm, tmp_path):
    with listening(llm) as url:
        [result] = bench(url, tmp_path, *NO_WARMUP)
    sent = [each.request for each in llm.submissions[1:]]
    assert all(each.sampling.ignore_eos and each.sampling.is_greedy for each in sent)
    assert sorted(len(each.prompt_token_ids) for each in sent) == sorted(
        each["num_prompt_tokens"] for each in result["requests"]
    )


def test_the_model_s_context_is_respected(tmp_path):
    llm = ScriptedLLM(max_model_len=50)
    with listening(llm) as url:
        [result] = bench(url, tmp_path, *NO_WARMUP)
    assert result["summary"]["num_answered"] == 8
    lens = [len(each.request.prompt_token_ids) + each.params.max_tokens for each in llm.submissions]
    assert max(lens) == 50


def test_refusals_are_counted_by_their_status(llm, tmp_path):
    llm.refusal, llm.num_until_refusal = Overloaded("Full.", retry_after_s=1), 1 + 5
    with listening(llm) as url:
        [result] = bench(url, tmp_path, *NO_WARMUP)
    assert result["summary"]["num_answered"] == 5
    assert result["summary"]["failures"] == {"status 429": 3}
    assert all(each["share"] <= 5 / 8 for each in result["summary"]["effective"])


def test_a_server_that_refuses_everything_is_measured_and_the_exit_status_tells(llm, tmp_path):
    llm.refusal = Overloaded("Full.", retry_after_s=1)
    with listening(llm) as url:
        plot = tmp_path / "out.svg"
        [result] = bench(url, tmp_path, "--plot", str(plot), *NO_WARMUP, expect=1)
    assert result["summary"]["failures"] == {"status 429": 8}
    assert result["summary"]["first_token_s"]["p50"] is None
    ElementTree.parse(plot)


def test_an_engine_that_dies_in_mid_stream_is_a_failure_with_what_came_before(tmp_path):
    llm = ScriptedLLM(Script("Hello!", fails_after=2))
    with listening(llm) as url:
        [result] = bench(url, tmp_path, *NO_WARMUP, expect=1)
    assert result["summary"]["failures"] == {"error in the stream": 8}
    assert {len(each["arrivals_s"]) for each in result["requests"]} == {2}


def test_a_connection_that_breaks_in_mid_stream_is_a_failure(tmp_path):
    with dying_server(num_whole=1 + 3) as url:
        [result] = bench(url, tmp_path, *NO_WARMUP)
    assert result["summary"]["num_answered"] == 3
    assert result["summary"]["failures"] == {"cut off": 5}


def test_without_usage_tokens_are_counted_by_events(tmp_path):
    with dying_server(num_whole=100) as url:
        [result] = bench(url, tmp_path, *NO_WARMUP)
    assert {request["num_output_tokens"] for request in result["requests"]} == {2}


def test_a_request_that_takes_too_long_is_a_failure(tmp_path):
    llm = ScriptedLLM(Script("Hello!", hangs_after=2))
    with listening(llm) as url:
        [result] = bench(url, tmp_path, *NO_WARMUP, "--timeout-s", "0.5", expect=1)
    assert result["summary"]["failures"] == {"timed out": 8}


def test_a_key_is_sent_and_written_nowhere(llm, tmp_path):
    with listening(llm, api_keys=("sesame",)) as url:
        with pytest.raises(NoSuchServer, match=r"status 401.*--api-key"):
            bench(url, tmp_path)
        bench(f"{url}/v1/", tmp_path, "--api-key", "sesame", *NO_WARMUP)
    assert "sesame" not in (tmp_path / "out.json").read_text()


def test_what_the_server_says_against_the_requests_is_passed_on(llm, tmp_path):
    with listening(llm) as url, pytest.raises(NoSuchServer, match=r"status 404.*nobody"):
        bench(url, tmp_path, "--model", "nobody")


def test_nobody_there_is_said_at_once(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(NoSuchServer, match="does not answer"):
            bench(url, tmp_path)


@pytest.mark.parametrize(
    "url", ["", "localhost", "ftp://host", "http://", "http://host:port", "a b"]
)
def test_what_is_no_url_is_refused(url, tmp_path):
    with pytest.raises(NoSuchServer, match="is no URL"):
        bench(url, tmp_path)


def test_a_password_in_the_url_is_refused_before_it_can_be_written_anywhere(tmp_path):
    with pytest.raises(NoSuchServer, match="--api-key") as refused:
        bench("http://me:sesame@host", tmp_path)
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize("models", [b"<html>", b"[]", b'{"data": 3}', b'{"data": [{}]}'])
def test_another_kind_of_server_is_refused(models, tmp_path):
    with (
        dying_server(num_whole=9, models=models) as url,
        pytest.raises(NoSuchServer, match="not answer as OpenAI's API says"),
    ):
        bench(url, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--clients", "2", "--rate", "1"), "exclude each other"),
        (("--clients", "9"), "8 requests leave some of 9 clients without any"),
        (("--rate", "0"), "--rate must be more than 0"),
        (("--plot", "/nowhere/at/all.svg"), "no folder /nowhere/at"),
    ],
)
def test_settings_that_cannot_be_are_refused(llm, tmp_path, arguments, message):
    with listening(llm) as url, pytest.raises(SettingsError, match=message):
        bench(url, tmp_path, *arguments)


def test_the_json_says_how_to_do_it_again(llm, tmp_path):
    with listening(llm) as url:
        bench(url, tmp_path, "--clients", "2", "--seed", "7", *NO_WARMUP)
        document = json.loads((tmp_path / "out.json").read_text())
    assert document["benchmark"] == "serve"
    assert (document["url"], document["served_model"]) == (url, "scripted")
    assert document["settings"]["seed"] == 7
    assert document["settings"]["clients"] == [2]
    assert document["settings"]["reading_speeds"] == [2, 4, 6]
    assert document["machine"]["processor"] and document["machine"]["cores"] >= 1
    assert document["versions"]["torch"] and document["penstock"] and document["date"]
