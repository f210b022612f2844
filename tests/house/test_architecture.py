"""The architecture is a test: who may import whom, and how large things may grow."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "penstock"

MAY_IMPORT = {
    "vocabulary": set(),
    "kernels": set(),
    "scheduling": {"vocabulary"},
    "text": {"vocabulary"},
    "models": {"vocabulary", "kernels"},
    "engine": {"vocabulary", "kernels", "scheduling", "text", "models"},
    "server": {"vocabulary", "text", "engine"},
    "cluster": {"vocabulary", "text", "engine", "server"},
    "bench": {"vocabulary", "engine"},
    "cli": {"vocabulary", "text", "models", "engine", "server", "cluster", "bench"},
}
NO_TORCH = ("vocabulary", "scheduling", "text", "server", "bench", "cli")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 40
FORBIDDEN_NAMES = {"utils", "common", "base", "manager", "helper", "helpers", "misc"}


def modules(layer: str = "") -> list[Path]:
    return sorted((SOURCE / layer).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def layers_imported(path: Path) -> set[str]:
    parts = (name.split(".") for name in imports(path))
    return {part[1] for part in parts if part[0] == "penstock" and len(part) > 1}


def test_every_folder_is_a_known_layer():
    folders = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()}
    assert folders <= set(MAY_IMPORT)


def test_modules_import_only_downwards():
    upward = [
        f"{path.relative_to(SOURCE)}: {layer}"
        for name, allowed in MAY_IMPORT.items()
        for path in modules(name)
        for layer in layers_imported(path) - allowed - {name}
    ]
    assert not upward


@pytest.mark.parametrize(
    "module",
    [
        "server.serve",
        "engine.async_llm",
        "engine.detection",
        "engine.grammar_trial",
        "cli.app",
        "bench.load",
        "scheduling.scheduler",
    ],
)
def test_no_process_but_the_engine_s_imports_torch(module):
    code = f"import sys, penstock.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_module_is_named_after_nothing():
    assert not [path for path in modules() if path.stem in FORBIDDEN_NAMES]


def test_no_pickle_and_no_evaluation_anywhere():
    banned = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}
    found = [path for path in modules() if banned & {name.split(".")[0] for name in imports(path)}]
    calls = [
        f"{path}:{node.lineno}"
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("eval", "exec", "compile")
    ]
    assert not found and not calls


def test_files_stay_small_enough_to_read():
    large = {str(path): len(path.read_text().splitlines()) for path in modules()}
    assert {name: lines for name, lines in large.items() if lines > MAX_FILE_LINES} == {}


def test_functions_stay_small_enough_to_see():
    large = [
        f"{path.relative_to(SOURCE)}:{node.lineno} {node.name}"
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert not large


def test_every_public_name_says_what_it_means():
    silent = [
        f"{path.relative_to(SOURCE)}:{node.lineno} {node.name}"
        for path in modules()
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node) is None
    ]
    assert not silent
    assert not [
        path
        for path in modules()
        if path.read_text().strip() and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
