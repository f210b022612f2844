"""Held-out perplexity, the same number every time for the same weights."""

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from scripts.default_model.corpus import Corpus
from scripts.default_model.data import held_out_stream
from scripts.default_model.llama import Llama, Shape

LENGTHS = (512, 2048)


class Score(NamedTuple):
    """What one pass over the held-out text found."""

    row_len: int
    num_tokens: int
    num_bytes: int
    nats: float

    @property
    def perplexity(self) -> float:
        """Per token."""
        return math.exp(self.nats / self.num_tokens)

    @property
    def bits_per_byte(self) -> float:
        """Comparable between tokenizers: end-of-text tokens cost bits but count no bytes."""
        return self.nats / math.log(2) / self.num_bytes

    @property
    def byte_perplexity(self) -> float:
        """Perplexity per byte of text."""
        return math.exp(self.nats / self.num_bytes)


@torch.inference_mode()
def score(model: Llama, stream: np.ndarray, *, row_len: int, num_bytes: int) -> Score:
    """Predict each token once, from what precedes it in its own row of `row_len`."""
    nats = 0.0
    for start in range(0, len(stream) - 1, row_len):
        row = torch.from_numpy(stream[start : start + row_len + 1])[None]
        nats += model(row[:, :-1], row[:, 1:]).item()
    return Score(row_len, len(stream) - 1, num_bytes, nats)


def evaluate(model: Llama, tokenizer: Tokenizer, corpus: Corpus) -> list[Score]:
    """Scores at each of LENGTHS."""
    model.eval()
    stream = held_out_stream(corpus.held_out, tokenizer)
    num_bytes = sum(len(document.text.encode()) for document in corpus.held_out)
    return [score(model, stream, row_len=each, num_bytes=num_bytes) for each in LENGTHS]


def load_model(folder: Path) -> tuple[Llama, Tokenizer]:
    """The exported weights, widened to float32, and their tokenizer."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = Llama(Shape(**{name: config[name] for name in Shape.__dataclass_fields__}))
    weights = load_file(folder / "model.safetensors")
    model.load_state_dict({name: weight.float() for name, weight in weights.items()})
    return model, Tokenizer.from_file(str(folder / "tokenizer.json"))
