"""A family is right when transformers agrees, whatever the slices and whoever shares the batch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from penstock.kernels.ops import REFERENCE
from penstock.models.decoder import Decoder
from penstock.models.loading import load_decoder, read_config
from tests.paged_steps import logits_of
from tests.tiny_models import TINY_FAMILIES, VOCAB_SIZE, save

PROMPTS = [
    torch.randint(VOCAB_SIZE, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    for length in (23, 1, 9)
]


@dataclass
class Pair:
    """The oracle's logits of every prompt, and where its checkpoint is."""

    expected: list[Tensor]
    directory: Path

    def decoder(self, dtype: str = "float32") -> Decoder:
        config = read_config(self.directory)
        device = torch.device("cpu")
        return load_decoder(
            self.directory,
            config,
            weights=dtype,
            dtype=getattr(torch, dtype),
            device=device,
            ops=REFERENCE,
        )


@pytest.fixture(scope="module", params=TINY_FAMILIES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    oracle = TINY_FAMILIES[request.param]()
    directory = tmp_path_factory.mktemp("checkpoint")
    save(oracle, directory)
    return Pair([expected_of(oracle, prompt) for prompt in PROMPTS], directory)


@torch.inference_mode()
def expected_of(oracle: Any, prompt: list[int]) -> Tensor:
    logits: Tensor = oracle(torch.tensor([prompt])).logits[0]
    return logits


def test_the_oracle_tells_tokens_apart(pair: Pair) -> None:
    assert all(logits.std() > 0.1 for logits in pair.expected)


def test_logits_are_those_of_transformers_for_slices_of_any_length(pair: Pair) -> None:
    decoder = pair.decoder()
    for chunk in (1, 3, 23):
        ours = logits_of(decoder, PROMPTS[:1], chunk=chunk)[0]
        torch.testing.assert_close(ours, pair.expected[0], atol=1e-4, rtol=0)


def test_companions_in_the_batch_do_not_show(pair: Pair) -> None:
    decoder = pair.decoder()
    for chunk in (1, 9):
        for ours, theirs in zip(
            logits_of(decoder, PROMPTS, chunk=chunk), pair.expected, strict=True
        ):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_half_precision_stays_near_float32(pair: Pair) -> None:
    for dtype, tolerance in (("bfloat16", 0.05), ("float16", 0.01)):
        ours = logits_of(pair.decoder(dtype), PROMPTS, chunk=5, dtype=dtype)[0]
        assert ours.dtype == torch.float32
        assert (ours - pair.expected[0]).std() < tolerance * pair.expected[0].std()
