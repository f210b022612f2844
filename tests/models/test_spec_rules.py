"""The guard rails of one decoder for many families."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

import penstock
from penstock.models import spec as spec_module
from penstock.models.families import ARCHITECTURES
from penstock.models.spec import DecoderSpec

SOURCE = Path(penstock.__file__).parent
MODELS = SOURCE / "models"
FAMILIES = MODELS / "families"
READERS = [path for path in MODELS.glob("*.py") if path.name != "spec.py"]


def classes() -> list[type]:
    found = vars(spec_module).values()
    return [
        item
        for item in found
        if inspect.isclass(item) and is_dataclass(item) and item.__module__ == spec_module.__name__
    ]


def names_read(path: Path) -> Iterator[str]:
    """Attributes read, and fields bound by a pattern."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.MatchClass):
            yield from node.kwd_attrs
            if node.patterns and isinstance(node.cls, ast.Name):
                yield from fields_of(node.cls.id)[: len(node.patterns)]


def fields_of(name: str) -> list[str]:
    return [field.name for field in fields(getattr(spec_module, name))]


def test_no_spec_field_is_unread() -> None:
    read = {name for path in READERS for name in names_read(path)}
    declared = {field.name for kind in classes() for field in fields(kind)}
    assert not declared - read


def test_a_spec_has_few_fields() -> None:
    assert len(fields(DecoderSpec)) <= 25


def test_family_names_stand_nowhere_outside_families() -> None:
    families = {*ARCHITECTURES.values(), "neox", "pythia"}
    mentions = [
        f"{path.relative_to(SOURCE)}: {name}"
        for layer in ("kernels", "models", "scheduling", "engine")
        for path in (SOURCE / layer).rglob("*.py")
        if FAMILIES not in path.parents
        for name in families
        if re.search(rf"\b{name}\b", code_of(path), re.IGNORECASE)
    ]
    assert not mentions


def code_of(path: Path) -> str:
    """A module without its docstrings and comments, which may compare."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not is_text(line)] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree)


def is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def test_every_family_file_is_in_the_table() -> None:
    files = {path.stem for path in FAMILIES.glob("*.py")} - {"__init__"}
    assert files == set(ARCHITECTURES.values())


@pytest.mark.parametrize("family", sorted(set(ARCHITECTURES.values())))
def test_a_family_is_short_and_says_what_to_read_it_as(family: str) -> None:
    text = (FAMILIES / f"{family}.py").read_text()
    assert len(text.splitlines()) <= 80
    assert "Read it as: " in text
    assert "https://arxiv.org/abs/" in text


def test_forward_passes_never_look_at_the_spec() -> None:
    """Variants are chosen when the decoder is built."""
    looking = [
        f"{path.name}: {function.name}"
        for path in READERS
        for cls in ast.walk(ast.parse(path.read_text()))
        if isinstance(cls, ast.ClassDef)
        for function in cls.body
        if isinstance(function, ast.FunctionDef) and function.name == "__call__"
        for node in ast.walk(function)
        if isinstance(node, ast.If | ast.IfExp | ast.Match)
        or (isinstance(node, ast.Attribute) and node.attr == "spec")
    ]
    assert not looking
