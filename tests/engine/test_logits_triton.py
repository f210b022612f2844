"""Models computed by the kernels in Triton, here in the interpreter, give the log probabilities
that the reference gives in float32, as nearly as docs/gpu.md says: for tiny models of all kinds,
with the prompt in slices.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from penstock.engine import loading
from penstock.engine.engine import Engine
from penstock.kernels.ops import REFERENCE
from penstock.vocabulary.sampling_params import SamplingParams
from tests.engine.tiny_engine import make_engine, run
from tests.engine.triton_laws import PROMPT, SMALL, resolve_to, triton_everywhere
from tests.kernels.interpreter import INTERPRETED
from tests.tiny_models import make_tiny_checkpoint

pytest.importorskip("triton")
pytestmark = INTERPRETED

FAMILIES = (
    *("llama", "mixtral", "qwen2-some-windows", "qwen3", "gpt_neox", "falcon-alibi"),
    *("opt-norm-after", "phi-with-head-norms"),
)
"""Every component of a decoder."""
TOLERANCES = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.1}
"""Absolute, of log probabilities."""
READ = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)


@pytest.fixture(scope="module", params=FAMILIES)
def model_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(request.param, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module", autouse=True)
def triton_ops() -> Iterator[None]:
    with triton_everywhere():
        yield


def logprobs(engine: Engine) -> Tensor:
    """What a model makes of the tokens of the prompt."""
    outputs = run(engine, {"r": (PROMPT, READ)})["r"][0]
    return torch.tensor([entry.logprob for each in outputs for entry in each.prompt_logprobs])


def reference(model_dir: Path, weights: str) -> Tensor:
    """From weights that are kept in the same type: rounding those is no kernel's doing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "choose_ops", lambda device, num_threads, **wishes: (REFERENCE, []))
        resolve_to(patch, weights=weights)
        return logprobs(make_engine(model_dir, **SMALL))


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_log_probabilities_are_those_of_the_reference(
    model_dir: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = reference(model_dir, dtype)
    resolve_to(monkeypatch, dtype=dtype, weights=dtype, kv_dtype=dtype)
    found = logprobs(make_engine(model_dir, token_budget=9, max_num_seqs=2, **SMALL))
    assert len(found) == len(PROMPT) - 1
    assert (found - expected).abs().max() <= TOLERANCES[dtype]
