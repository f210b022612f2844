"""`penstock run-batch`, killed at any moment and run again."""

import json
import signal
import subprocess
import sys
from collections import Counter

from tests.endtoend.commands import typed
from tests.endtoend.served import eventually

NUM_LINES = 16
NUM_AT_FIRST = 8


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "penstock.cli", "run-batch", *map(str, arguments)]


def request(number: int) -> str:
    body = {"prompt": f"x = {number}\n", "max_tokens": 24, "ignore_eos": True, "seed": number}
    line = {"custom_id": f"line {number}", "method": "POST", "url": "/v1/completions", "body": body}
    return json.dumps(line) + "\n"


def texts(path) -> dict[str, str]:
    answers = [json.loads(line) for line in path.read_text().splitlines()]
    assert Counter(each["custom_id"] for each in answers).most_common(1)[0][1] == 1
    bodies = {each["custom_id"]: each["response"]["body"] for each in answers}
    return {custom_id: body["choices"][0]["text"] for custom_id, body in bodies.items()}


def test_a_killed_run_goes_on_where_it_ended(tmp_path):
    source, killed, whole = (tmp_path / name for name in ("in", "killed", "whole"))
    source.write_text("".join(map(request, range(NUM_LINES))))
    flags = ("--concurrency", 4, "--kv-cache-gib", 0.2)
    with (tmp_path / "log").open("wb") as log:
        first = subprocess.Popen(command("-", killed, *flags), stdin=subprocess.PIPE, stderr=log)
        with first.stdin as requests:  # it gets no more before it is killed
            requests.write("".join(map(request, range(NUM_AT_FIRST))).encode())
            requests.flush()
            assert eventually(lambda: killed.exists() and killed.read_bytes().count(b"\n") >= 5)
            first.send_signal(signal.SIGKILL)
            assert first.wait() == -signal.SIGKILL
    num_before = killed.read_bytes().count(b"\n")
    assert 5 <= num_before <= NUM_AT_FIRST
    killed.write_bytes(killed.read_bytes().rpartition(b"\n")[0] + b'\n{"id":"batch_req_7')
    done = subprocess.run(command(source, killed, *flags), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert f"{NUM_LINES - num_before} lines answered; {num_before} were answered before." in said
    assert set(texts(killed)) == {f"line {number}" for number in range(NUM_LINES)}

    undisturbed = command("-", "-", *flags)
    done = subprocess.run(undisturbed, input=source.read_bytes(), capture_output=True)
    whole.write_bytes(done.stdout)
    assert texts(whole) == texts(killed)

    again = typed("run-batch", str(source), str(killed))
    assert f"answers all {NUM_LINES} lines already" in " ".join(again.stderr.split())


def test_a_mistake_is_named_without_a_traceback(tmp_path):
    source = tmp_path / "in"
    source.write_text(request(1))
    for files, words in (
        (("/nowhere.jsonl", tmp_path / "out"), "Cannot read /nowhere.jsonl"),
        ((source, source), "cannot be both the input and the output"),
        ((source, "/nowhere/out"), "Cannot write /nowhere/out"),
    ):
        done = typed("run-batch", *map(str, files))
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert words in " ".join(done.stderr.split())
    assert source.read_text() == request(1)
