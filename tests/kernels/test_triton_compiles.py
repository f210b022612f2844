"""The kernels in Triton are programs for GPUs: they compile for some, on a machine without any."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("triton")

EXPECTED = {
    "_argmax",
    "_attend",
    "_draw",
    "_follow",
    "_gather",
    "_join",
    "_join_in_order",
    "_mix",
    "_norm",
    "_product",
    "_rope_write_kv",
    "_round_rows",
    "_top_logprobs",
}
OF_FP8 = {"_attend", "_mix", "_product", "_rope_write_kv", "_round_rows"}
COMPILED = {80: EXPECTED, 89: OF_FP8, 90: EXPECTED}
"""Kernels by compute capability: for 8.9 those that 8.0 has not."""


@pytest.fixture(scope="module")
def compilers(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[int, subprocess.Popen[str]]]:
    """All at once: each takes minutes on one processor."""
    started = {
        capability: subprocess.Popen(
            [sys.executable, "-m", "tests.kernels.compile_kernels", str(capability)],
            env=os.environ
            | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))},
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for capability in COMPILED
    }
    yield started
    for compiler in started.values():
        compiler.kill()
        compiler.communicate()


@pytest.mark.triton
@pytest.mark.timeout(900)
@pytest.mark.parametrize("capability", COMPILED)
def test_every_kernel_compiles(
    capability: int, compilers: dict[int, subprocess.Popen[str]]
) -> None:
    compiler = compilers[capability]
    printed, complaints = compiler.communicate()
    assert compiler.returncode == 0, complaints
    assert {line.split()[0] for line in printed.splitlines()} == COMPILED[capability]
