"""The kernels in Triton are programs for GPUs: they compile for some, on a machine without any."""

import os
import subprocess
import sys
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


@pytest.mark.triton
@pytest.mark.timeout(600)
@pytest.mark.parametrize("capability", [80, 89, 90])
def test_every_kernel_compiles(capability: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.compile_kernels", str(capability)],
        env=os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()} == EXPECTED
