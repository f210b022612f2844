"""The engine runs where there is little besides torch: no HTTP, no terminal, no built kernels."""

import subprocess
import sys
from pathlib import Path

from tests.tiny_models import make_tiny_checkpoint

ABSENT = (
    *("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "httpx2", "prometheus_client"),
    *("typer", "rich", "huggingface_hub", "llguidance", "triton", "transformers"),
    *("penstock.kernels.cpu._native", "penstock.server", "penstock.cli"),
)
PROGRAM = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if any(name == each or name.startswith(each + ".") for each in sys.argv[2].split(",")):
            raise ModuleNotFoundError(f"{name} is not here")

sys.meta_path.insert(0, Absent())
from pathlib import Path
from penstock.vocabulary.sampling_params import SamplingParams
from tests.engine.tiny_engine import continuation, make_engine

engine = make_engine(Path(sys.argv[1]))
print(len(continuation(engine, [5, 6, 7], SamplingParams(max_tokens=4, ignore_eos=True, seed=1))))
"""


def test_the_engine_needs_neither_http_nor_terminal_nor_kernels(tmp_path: Path) -> None:
    directory = make_tiny_checkpoint("llama", tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(directory), ",".join(ABSENT)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["4"]
