"""The conformance table: for every operation how it is called, what it must compute, and on what.

A backend joins by its line in `BACKENDS`, an operation by its entry in `TABLE`; the tests follow by
themselves. `formula` is independent of every backend and computes in float64.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penstock.kernels.ops import REFERENCE, Ops
from tests.kernels import formulas
from tests.kernels.attention_cases import ATTENTION, attend, attend_formula

BACKENDS: Mapping[str, Ops] = {"reference": REFERENCE}

Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class Entry:
    """One operation. Cases are functions from a seeded generator to arguments, by name."""

    call: Callable[..., Any]
    formula: Callable[..., Any]
    cases: Mapping[str, Callable[[torch.Generator], Arguments]]
    tolerance: float = 1e-5


def normal(*shape: int) -> Callable[[torch.Generator], Tensor]:
    return lambda generator: torch.randn(*shape, generator=generator)


def arguments(*parts: Any) -> Callable[[torch.Generator], Arguments]:
    """A case whose arguments are these: those that are functions are given the generator."""
    return lambda generator: tuple(part(generator) if callable(part) else part for part in parts)


def half(case: Callable[[torch.Generator], Arguments]) -> Callable[[torch.Generator], Arguments]:
    """The same case in bfloat16."""
    return lambda generator: tuple(
        part.bfloat16() if isinstance(part, Tensor) and part.is_floating_point() else part
        for part in case(generator)
    )


def _rope_case(tokens: int, heads: int, size: int, turned: int) -> Any:
    def build(generator: torch.Generator) -> Arguments:
        angles = torch.randn(tokens, 1, turned // 2, generator=generator)
        cos, sin = torch.cos(angles), torch.sin(angles)
        x = torch.randn(tokens, heads, size, generator=generator)
        return x, torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)

    return build


def _write_case(tokens: int, blocks: int, block_size: int) -> Any:
    def build(generator: torch.Generator) -> Arguments:
        heads = torch.randn(tokens, 5, 6, generator=generator)
        caches = [torch.randn(blocks, block_size, 2, 6, generator=generator) for _ in range(2)]
        slots = torch.randperm(blocks * block_size, generator=generator)[:tokens]
        return heads[:, 1:3], heads[:, 3:], *caches, slots

    return build


def _linear(ops: Ops, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return ops.linear(x, ops.pack_linear(weight, bias))


def _experts(
    ops: Ops, x: Tensor, logits: Tensor, gate_up: Tensor, down: Tensor, top_k: int, kind: str
) -> Tensor:
    packed = ops.pack_experts(list(gate_up), list(down))
    return ops.experts(x, logits, packed, top_k, kind)


def _experts_case(tokens: int, count: int, top_k: int) -> Any:
    shapes = (tokens, 8), (tokens, count), (count, 2 * 12, 8), (count, 8, 12)
    return arguments(*(normal(*shape) for shape in shapes), top_k, "silu")


TABLE: Mapping[str, Entry] = {
    "embedding": Entry(
        lambda ops, *args: ops.embedding(*args),
        lambda ids, table: torch.stack([table[i] for i in ids.tolist()]),
        {"some rows": arguments(torch.tensor([3, 0, 3]), normal(5, 7))},
    ),
    "rms_norm": Entry(
        lambda ops, *args: ops.rms_norm(*args),
        formulas.rms_norm,
        {
            "one token": arguments(normal(1, 8), normal(8), 1e-6),
            "odd width": arguments(normal(5, 13), normal(13), 1e-5),
            "a norm per head": arguments(normal(5, 3, 8), normal(3, 8), 1e-5),
            "nearly zero": arguments(torch.full((2, 8), 1e-6), normal(8), 1e-5),
        },
    ),
    "layer_norm": Entry(
        lambda ops, *args: ops.layer_norm(*args),
        formulas.layer_norm,
        {
            "one token": arguments(normal(1, 8), normal(8), normal(8), 1e-5),
            "odd width": arguments(normal(5, 13), normal(13), normal(13), 1e-5),
            "a norm per head": arguments(normal(5, 3, 8), normal(3, 8), normal(3, 8), 1e-5),
        },
    ),
    "linear": Entry(
        _linear,
        formulas.linear,
        {
            "one token": arguments(normal(1, 8), normal(5, 8), None),
            "with bias": arguments(normal(3, 8), normal(5, 8), normal(5)),
            "many tokens": arguments(normal(67, 33), normal(65, 33), normal(65)),
            "bfloat16": half(arguments(normal(3, 8), normal(5, 8), normal(5))),
        },
    ),
    "rope": Entry(
        lambda ops, *args: ops.rope(*args),
        formulas.rope,
        {
            "one token": _rope_case(1, 1, 4, 4),
            "whole heads": _rope_case(5, 3, 8, 8),
            "part of a head": _rope_case(5, 3, 8, 2),
        },
    ),
    "write_kv": Entry(
        lambda ops, *args: ops.write_kv(*args),
        formulas.write_kv,
        {
            "one token": _write_case(1, 2, 16),
            "blocks of one": _write_case(4, 9, 1),
            "no token": _write_case(0, 2, 4),
        },
    ),
    "activation": Entry(
        lambda ops, *args: ops.activation(*args),
        formulas.activation,
        {kind: arguments(normal(3, 7), kind) for kind in formulas.ACTIVATIONS},
    ),
    "gated_activation": Entry(
        lambda ops, *args: ops.gated_activation(*args),
        formulas.gated_activation,
        {kind: arguments(normal(3, 14), kind) for kind in ("silu", "gelu")},
    ),
    "experts": Entry(
        _experts,
        formulas.experts,
        {
            "one token": _experts_case(1, 4, 2),
            "one expert": _experts_case(5, 1, 1),
            "more experts than tokens": _experts_case(2, 8, 2),
            "every expert": _experts_case(7, 3, 3),
        },
        tolerance=1e-4,
    ),
    "paged_attention": Entry(attend, attend_formula, ATTENTION),
}
