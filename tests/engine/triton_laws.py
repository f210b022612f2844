"""What all tests of the engine's laws on the kernels in Triton share."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock.engine import loading
from penstock.engine.resolving import resolve
from penstock.engine.settings import Resolved
from tests.kernels.interpreter import mend_interpreter
from tests.tiny_models import make_tiny_checkpoint

PROMPT = [3 + 7 * number % 97 for number in range(18)]
OTHER = [5 + 11 * number % 89 for number in range(15)]
SMALL: dict[str, Any] = {"kv_cache_gib": 0.001, "num_blocks": 16}
"""Settings of an engine with room for these prompts and little more."""


@pytest.fixture(scope="module", params=["qwen3", "mixtral"])
def model_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One family with shared keys and rotations, and one with experts."""
    return make_tiny_checkpoint(request.param, tmp_path_factory.mktemp("model"))


@contextlib.contextmanager
def triton_everywhere() -> Iterator[pytest.MonkeyPatch]:
    """Every engine made meanwhile computes, in the interpreter, with the kernels that its settings
    ask for.
    """
    from penstock.kernels.triton.backend import kernels

    with pytest.MonkeyPatch.context() as patch:
        mend_interpreter(patch)
        patch.setattr(
            loading, "choose_ops", lambda device, num_threads, **wishes: (kernels(**wishes), [])
        )
        yield patch


def resolve_to(patch: pytest.MonkeyPatch, **chosen: str) -> None:
    """Engines made from now on are given what is chosen here: activations in half precision, say,
    which `resolve` leaves to GPUs.
    """

    def resolved(*facts: Any) -> Resolved:
        return replace(resolve(*facts), **chosen)

    patch.setattr(loading, "resolve", resolved)
