"""A text marked by one command is found by another, and by a server with the same key."""

import json
import os

import pytest

from penstock.engine.detection import detect_watermark
from tests.endtoend.commands import typed
from tests.endtoend.served import penstock_serve

ENVIRONMENT = {**os.environ, "PENSTOCK_WATERMARK_KEY": "a secret"}


@pytest.fixture(scope="module")
def marked() -> str:
    flags = ("--watermark", "--max-tokens", "200", "--ignore-eos", "--seed", "1", "--no-echo")
    done = typed("generate", *flags, "import os\n", env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_file_or_standard_input_is_told_to_be_marked(marked, tmp_path):
    (tmp_path / "text").write_text(marked)
    done = typed("detect-watermark", "--json", str(tmp_path / "text"), env=ENVIRONMENT)
    report = json.loads(done.stdout)
    assert report["is_watermarked"] and report["z_score"] > 4
    done = typed("detect-watermark", "--watermark-key", "a secret", input=marked)
    assert f"{report['z_score']:.2f}" in done.stdout and "yes" in done.stdout
    done = typed("detect-watermark", "--watermark-key", "another", input=marked)
    assert "yes" not in done.stdout


def test_a_server_finds_its_own_texts(tmp_path):
    with penstock_serve(tmp_path, environment=ENVIRONMENT) as server:
        options = {"max_tokens": 300, "ignore_eos": True, "seed": 1, "watermark": True}
        body = {"prompt": "import os\n", **options}
        text = server.client.post("/v1/completions", json=body).json()["choices"][0]["text"]
        report = server.client.post("/v1/watermark/detect", json={"text": text}).json()
        assert report["is_watermarked"]
        assert report["z_score"] == pytest.approx(detect_watermark(text, key="a secret").z_score)
    assert "a secret" not in server.log.read_text()


def test_mistakes_are_named_without_a_traceback(tmp_path):
    for arguments, words in (
        (("--watermark-key", "k", "/nowhere"), "Cannot read /nowhere"),
        (("--watermark-key", ""), "key is empty"),
        (("--watermark-key", "k", "--gamma", "2"), "gamma must be above 0 and below 1"),
        ((), "watermark-key"),
    ):
        done = typed("detect-watermark", *arguments, input="some words of text")
        assert done.returncode != 0 and words in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr
