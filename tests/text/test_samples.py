"""Texts to measure a model on."""

import json
from itertools import chain

import pytest

from penstock.models.location import embedded_model_dir
from penstock.text.samples import sample_token_ids
from penstock.text.tokenizer import Tokenizer
from penstock.vocabulary.errors import SettingsError


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_dir(embedded_model_dir())


def test_a_text_is_cut_into_rows_until_there_are_tokens_enough(tokenizer, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("def add(a, b):\n    return a + b\n" * 50)
    rows = sample_token_ids(tokenizer, file, num_tokens=100, row_len=32)
    assert [len(row) for row in rows] == [32, 32, 32, 4]
    assert list(chain.from_iterable(rows)) == tokenizer.encode(file.read_text())[:100]


def test_every_line_of_a_jsonl_is_a_text_of_its_own(tokenizer, tmp_path):
    file = tmp_path / "texts.jsonl"
    texts = ["import os", "class Stack:", "x = 1"]
    file.write_text("".join(json.dumps({"text": text, "id": 1}) + "\n" for text in texts))
    rows = sample_token_ids(tokenizer, file, num_tokens=1000, row_len=32)
    assert rows == [tokenizer.encode(text) for text in texts]


def test_without_a_file_it_is_the_language_reference(tokenizer):
    rows = sample_token_ids(tokenizer, None, num_tokens=2000, row_len=512)
    assert sum(map(len, rows)) == 2000
    assert "assert" in tokenizer.decode(rows[0])


@pytest.mark.parametrize("line", ["nonsense", "[]", '{"prompt": "x"}', '{"text": 3}'])
def test_a_line_without_a_text_is_named(tokenizer, tmp_path, line):
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(SettingsError, match="line 2"):
        sample_token_ids(tokenizer, file, num_tokens=1000, row_len=32)


def test_a_file_that_cannot_be_read_or_is_empty_is_named(tokenizer, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for name in ("missing.txt", "missing.jsonl", "empty.txt", "binary.txt"):
        with pytest.raises(SettingsError, match=name):
            sample_token_ids(tokenizer, tmp_path / name, num_tokens=10, row_len=5)
