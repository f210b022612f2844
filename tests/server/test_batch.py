"""A batch: OpenAI's format, every line answered once, whatever happens in between."""

import asyncio
import io
import json
import os
import threading

import pytest

from penstock.server.batch.ledger import Ledger
from penstock.server.batch.results import Results
from penstock.server.batch.run import Batch
from penstock.server.batch.settings import BatchSettings
from penstock.vocabulary.errors import EngineFailed, Overloaded, SettingsError, Unavailable
from tests.server.scripted_llm import Script, ScriptedLLM


def line(custom_id: str, **fields) -> dict:
    request = {"method": "POST", "url": "/v1/completions", "body": {"prompt": "Hi"}}
    return {"custom_id": custom_id, **request, **fields}


def jsonl(*requests: dict | str) -> bytes:
    texts = [each if isinstance(each, str) else json.dumps(each) for each in requests]
    return "".join(f"{text}\n" for text in texts).encode()


async def answer(llm, source: bytes | io.BufferedIOBase, path, *, concurrency=4, **settings):
    """One run of the command, without the command. What it counted."""
    ledger = Ledger()
    results = Results.resume(path, ledger)
    try:
        batch = Batch(
            llm,
            BatchSettings(**settings),
            ledger=ledger,
            results=results,
            concurrency=concurrency,
        )
        return await batch.run(io.BytesIO(source) if isinstance(source, bytes) else source)
    finally:
        results.close()
        ledger.close()


def answers(path) -> dict[str, dict]:
    found = [json.loads(text) for text in path.read_text().splitlines()]
    assert len({each["id"] for each in found}) == len(found)
    return {each["custom_id"]: each for each in found}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.jsonl"


async def test_each_request_is_answered_as_over_http(llm, out):
    chat = {"messages": [{"role": "user", "content": "Hi"}]}
    tally = await answer(
        llm, jsonl(line("a"), line("b", url="/v1/chat/completions", body=chat)), out
    )
    assert (tally.answered, tally.refused, tally.bad) == (2, 0, 0)
    text, chatted = answers(out)["a"], answers(out)["b"]
    assert set(text) == {"id", "custom_id", "response", "error"} and text["error"] is None
    assert text["response"]["status_code"] == 200 and text["response"]["request_id"]
    assert text["response"]["body"]["choices"][0]["text"] == "Hello!"
    assert chatted["response"]["body"]["choices"][0]["message"]["content"] == "Hello!"


async def test_what_the_server_refuses_keeps_its_status_and_its_words(llm, out):
    wrong = line("a", body={"prompt": "Hi", "temperature": 9})
    tally = await answer(llm, jsonl(wrong, line("b", url="/v1/nothing")), out)
    assert tally.refused == 2
    refused = answers(out)["a"]["response"]
    assert refused["status_code"] == 400 and refused["body"]["error"]["param"] == "temperature"
    assert answers(out)["b"]["response"]["status_code"] == 404


@pytest.mark.parametrize(
    ("bad", "custom_id", "code"),
    [
        ("no JSON", None, "invalid_json_line"),
        ("[]", None, "invalid_line"),
        ('{"custom_id": "x"}', "x", "invalid_line"),
        (line("x", method="GET"), "x", "invalid_method"),
        (line("x", url="v1/completions"), "x", "invalid_url"),
        (line("x", url="/v1/completions\n"), "x", "invalid_url"),
        (line("x", url="//127.0.0.1/admin/drain"), "x", "invalid_url"),
        (line("x", url="/" + "v" * 1500), "x", "invalid_url"),
        (line("x", body=3), "x", "invalid_body"),
        (line("x", body={"prompt": "Hi", "stream": True}), "x", "stream_not_supported"),
        (line("x", colour="red"), "x", "invalid_line"),
        (line("x", body={"prompt": "y" * 5000}), None, "line_too_long"),
    ],
)
async def test_a_line_that_is_no_request_becomes_an_error_and_the_others_are_answered(
    llm, out, bad, custom_id, code
):
    tally = await answer(llm, jsonl(bad, line("good")), out, max_body_bytes=2000)
    assert (tally.answered, tally.bad) == (1, 1)
    assert answers(out)["good"]["response"]["status_code"] == 200
    failed = answers(out)[custom_id]
    assert failed["response"] is None and failed["error"]["code"] == code
    assert failed["error"]["message"]


async def test_a_repeated_custom_id_is_reported_and_only_its_first_line_answered(llm, out):
    tally = await answer(llm, jsonl(line("a"), line("b"), line("a"), line("a")), out)
    assert (tally.answered, tally.bad, tally.repeated) == (2, 2, 2)
    lines = [json.loads(text) for text in out.read_text().splitlines()]
    repeats = [each["error"] for each in lines if each["error"]]
    assert [each["code"] for each in repeats] == ["duplicate_custom_id"] * 2
    assert all("Line 1" in each["message"] for each in repeats)
    assert len(llm.submissions) == 2


async def test_blank_lines_and_a_missing_last_line_end_do_not_matter(llm, out):
    source = b"\n" + jsonl(line("a")) + b"  \n" + jsonl(line("b")).rstrip()
    assert (await answer(llm, source, out)).answered == 2


async def test_no_more_lines_are_in_flight_than_asked(out):
    """The first are answered only when there are as many as may be."""
    go_on, seen = threading.Event(), []

    def script(request) -> Script:
        seen.append(llm.num_in_flight)
        if llm.num_in_flight == 3:
            go_on.set()
        return Script(hangs_after=1, until=go_on)

    llm = ScriptedLLM(script)
    await answer(llm, jsonl(*(line(str(number)) for number in range(20))), out, concurrency=3)
    assert max(seen) == 3 and len(answers(out)) == 20


async def test_the_source_is_read_no_further_than_needed(out):
    """Memory stays the same however long the file is."""
    llm = ScriptedLLM(Script(hangs_after=1))
    lines = jsonl(*(line(str(number)) for number in range(100)))
    source = io.BytesIO(lines)
    running = asyncio.create_task(answer(llm, source, out, concurrency=3))
    while llm.num_in_flight < 3:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    assert source.tell() <= len(lines) * 5 // 100
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_what_is_answered_is_not_asked_again(llm, out):
    requests = [line(str(number)) for number in range(10)]
    await answer(llm, jsonl(*requests[:4]), out)
    tally = await answer(llm, jsonl(*requests), out)
    assert (tally.answered, tally.done_before) == (6, 4)
    assert len(answers(out)) == 10 and len(llm.submissions) == 10


@pytest.mark.parametrize("cut", [1, 20, 200])
async def test_a_torn_last_line_is_answered_again(llm, out, cut):
    await answer(llm, jsonl(line("a"), line("b")), out)
    whole = out.read_bytes()
    out.write_bytes(whole[:-cut])
    tally = await answer(llm, jsonl(line("a"), line("b")), out)
    assert (tally.answered, tally.done_before) == (1, 1)
    assert set(answers(out)) == {"a", "b"}


async def test_a_first_line_torn_anywhere_is_repaired(llm, out):
    await answer(llm, jsonl(line("a")), out)
    whole = out.read_bytes()
    for length in range(0, len(whole), 9):
        out.write_bytes(whole[:length])
        assert (await answer(llm, jsonl(line("a")), out)).answered == 1
        assert set(answers(out)) == {"a"}


async def test_duplicates_are_found_across_runs(llm, out):
    await answer(llm, jsonl(line("a")), out)
    tally = await answer(llm, jsonl(line("a"), line("a")), out)
    assert (tally.done_before, tally.repeated) == (1, 1)
    again = await answer(llm, jsonl(line("a"), line("a")), out)
    assert (again.done_before, again.bad) == (2, 0)


@pytest.mark.parametrize(
    "content", [b'{"name": "somebody\'s data"}\n', b"no line end", b'{"id":"batch_req_x"}\n']
)
async def test_a_file_that_is_none_of_ours_is_left_alone(llm, out, content):
    out.write_bytes(content)
    with pytest.raises(SettingsError, match=r"out.jsonl, line 1, is no answer"):
        await answer(llm, jsonl(line("a")), out)
    assert out.read_bytes() == content


async def test_the_answers_of_another_input_are_not_mixed_with_ours(llm, out):
    await answer(llm, jsonl(line("a"), line("b")), out)
    before = out.read_bytes()
    with pytest.raises(SettingsError, match="another input: line 1 was 'a' there, and is 'c' here"):
        await answer(llm, jsonl(line("c"), line("b"), line("d")), out)
    assert out.read_bytes() == before


async def test_two_runs_cannot_write_one_file(llm, out):
    results = Results.resume(out, Ledger())
    with pytest.raises(SettingsError, match="being written by another process"):
        await answer(llm, jsonl(line("a")), out)
    results.close()


async def test_a_full_queue_and_a_restarting_engine_are_waited_for(llm, out):
    llm.refusal = Overloaded("Full.", retry_after_s=0)
    running = asyncio.create_task(answer(llm, jsonl(line("a")), out))
    await asyncio.sleep(0.05)
    assert not out.read_bytes()
    llm.refusal = None
    assert (await running).answered == 1


async def test_a_request_over_which_the_engine_fails_again_and_again_is_given_up(
    llm, out, monkeypatch
):
    monkeypatch.setattr("penstock.server.batch.run._PAUSE_S", 0)
    llm.refusal = EngineFailed("It died.")
    tally = await answer(llm, jsonl(line("a")), out)
    assert tally.refused == 1 and answers(out)["a"]["response"]["status_code"] == 500


async def test_an_engine_that_never_comes_back_ends_the_run(llm, out, monkeypatch):
    monkeypatch.setattr("penstock.server.batch.run._PATIENCE_S", 0)
    llm.refusal = Unavailable("Being started again.")
    with pytest.raises(Unavailable, match="goes on from here"):
        await answer(llm, jsonl(line("a"), line("b")), out)
    llm.refusal = None
    assert (await answer(llm, jsonl(line("a"), line("b")), out)).answered == 2


async def test_a_pipe_is_read_without_keeping_answers_waiting(llm, out):
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as source:
        running = asyncio.create_task(answer(llm, source, out))
        os.write(writer, jsonl(line("a")))
        while not out.exists() or not out.read_bytes():
            await asyncio.sleep(0.001)
        os.write(writer, jsonl(line("b")))
        os.close(writer)
        assert (await running).answered == 2
