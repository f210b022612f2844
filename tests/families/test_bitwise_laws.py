"""On the CPU's kernels the laws hold bit for bit, however weights, keys and values are kept.

A token's logits are the same number by number whether its prompt came whole or in slices, alone or
among others, to one thread or to several, with a cache that was cold or held its beginning.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from penstock.models.decoder import Decoder
from penstock.models.loading import load_decoder, read_config
from tests.kernels.instruction_sets import ISAS, cpu_ops
from tests.paged_steps import logits_of
from tests.tiny_models import VOCAB_SIZE, make_tiny_checkpoint

FAMILIES = (
    "llama",
    "llama-with-biases",
    "mistral-short-window",
    "mixtral",
    "qwen3",
    "gpt_neox",
    "falcon",
    "falcon-alibi",
    "opt",
    "phi",
)
KEPT = [
    ("float32", "float32"),
    ("bfloat16", "bfloat16"),
    ("int8", "bfloat16"),
    ("int8", "int8"),
    ("int4", "bfloat16"),
    ("int4", "int8"),
]
PROMPTS = [
    torch.randint(VOCAB_SIZE, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    for length in (67, 1, 30, 16, 100)
]

pytestmark = pytest.mark.skipif(not ISAS, reason="no kernels were built for this processor")


@pytest.fixture(scope="module")
def directory_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return cache(lambda family: make_tiny_checkpoint(family, tmp_path_factory.mktemp(family)))


@pytest.fixture(params=FAMILIES)
def directory(request: pytest.FixtureRequest, directory_of: Callable[[str], Path]) -> Path:
    return directory_of(request.param)


def decoder_of(directory: Path, weights: str) -> Decoder:
    return load_decoder(
        directory,
        read_config(directory),
        weights=weights,
        dtype=torch.float32,
        device=torch.device("cpu"),
        ops=cpu_ops(),
    )


def logits(decoder: Decoder, prompts: list[list[int]], chunk: int, dtype: str) -> list[Tensor]:
    return logits_of(decoder, prompts, chunk=chunk, block_size=16, dtype=dtype)


@pytest.mark.parametrize(("weights", "kv_dtype"), KEPT)
@pytest.mark.parametrize("backend", ISAS)
def test_slices_company_and_threads_change_no_bit(
    directory: Path, weights: str, kv_dtype: str, backend: str
) -> None:
    import penstock.kernels.cpu._native as native

    decoder = decoder_of(directory, weights)
    native.set_num_threads(1)
    whole = logits(decoder, PROMPTS[:1], 67, kv_dtype)[0]
    assert whole.std() > 0.05
    native.set_num_threads(3)
    try:
        for chunk in (1, 2, 7, 33, 67):
            assert torch.equal(logits(decoder, PROMPTS[:1], chunk, kv_dtype)[0], whole)
        for chunk in (1, 5, 100):
            assert torch.equal(logits(decoder, PROMPTS, chunk, kv_dtype)[0], whole)
    finally:
        native.set_num_threads(1)
