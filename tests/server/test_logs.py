"""What the log says of requests: ids and names of keys, never what was asked or answered."""

import json
import logging

import pytest

from penstock.engine.front_settings import FrontSettings
from penstock.engine.log_format import JsonLines, TextLines, about
from penstock.vocabulary.errors import SettingsError
from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import client_of

BODY = {"prompt": "secret question", "max_tokens": 3}


def lines(caplog, formatter):
    return [formatter.format(record) for record in caplog.records if "penstock" in record.name]


@pytest.fixture
def info(caplog):
    caplog.set_level("INFO", logger="penstock")
    return caplog


async def ask(llm, **body):
    async with client_of(llm, access_log=True, api_keys=("key1",)) as client:
        headers = {"authorization": "Bearer key1", "x-request-id": "r1"}
        body = {**BODY, **body}
        return await client.post("/v1/completions?q=1", json=body, headers=headers)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_access_log_has_a_line_per_request_and_nothing_of_its_contents(info, stream):
    await ask(ScriptedLLM(Script("secret answer", queued_s=0.0)), stream=stream)
    (line,) = lines(info, JsonLines())
    told = json.loads(line)
    assert told.pop("time").endswith("+00:00")
    for duration in ("seconds", "queue_seconds", "first_token_seconds"):
        assert 0 <= told.pop(duration) < 60
    assert told == {
        "level": "info",
        "logger": "penstock.server.exchange",
        "message": "answered",
        "request_id": "r1",
        "key": "api-key-1",
        "method": "POST",
        "route": "/v1/completions",
        "status": 200,
        "error": None,
        "prompt_tokens": 15,
        "generated_tokens": 3,
    }


async def test_for_people_it_is_one_line_of_text(info):
    await ask(ScriptedLLM())
    (line,) = lines(info, TextLines())
    assert " penstock.server.exchange: answered request_id=r1 key=api-key-1 method=POST" in line


async def test_a_stream_that_fails_is_logged_with_its_request_and_so_is_why(info):
    await ask(ScriptedLLM(Script("secret answer", fails_after=2)), stream=True)
    failed, answered = map(json.loads, lines(info, JsonLines()))
    assert failed["level"] == "error" and failed["request_id"] == "r1"
    assert "died" in failed["message"]
    assert (answered["status"], answered["error"]) == (200, "engine_failed")


async def test_what_nobody_foresaw_comes_with_its_traceback_on_the_same_line(info):
    llm = ScriptedLLM()
    llm.refusal = ZeroDivisionError("oh")
    await ask(llm)
    failed, _ = lines(info, JsonLines())
    assert "\n" not in failed
    told = json.loads(failed)
    assert told["request_id"] == "r1"
    assert told["exception"].endswith("ZeroDivisionError: oh\n")


def test_no_message_breaks_a_line_of_json():
    record = logging.LogRecord("a", 20, "", 0, 'x\n"%s"\u2028', ("y",), None)
    record.__dict__.update(about(value={1, 2}))
    line = JsonLines().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == 'x\n"y"\u2028'
    assert json.loads(line)["value"] == "{1, 2}"


def test_nor_does_one_forge_a_line_of_text_or_steer_a_terminal():
    record = logging.LogRecord("a", 20, "", 0, "x\n2026 forged\x1b[2J\u2028", (), None)
    record.__dict__.update(about(value="\r"))
    line = TextLines().format(record)
    assert line.endswith(r"a: x\n2026 forged\x1b[2J\u2028 value=\r")
    assert len(line.splitlines()) == 1


def test_an_unknown_format_is_refused():
    with pytest.raises(SettingsError, match="xml"):
        FrontSettings(log_format="xml")
