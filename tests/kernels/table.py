"""The conformance table: for every operation how it is called, what it must compute, and on what.

A backend joins by its line in `BACKENDS`, an operation by its entry in `TABLE`; the tests follow by
themselves. `formula` is independent of every backend and computes in float64.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penstock.kernels.norm.contract import Norm
from penstock.kernels.ops import REFERENCE, Ops
from penstock.kernels.paged_attention.contract import AttentionShape
from tests.kernels import formulas, sampling_cases
from tests.kernels.attention_cases import ATTENTION, attend, attend_formula
from tests.kernels.instruction_sets import ISAS, cpu_ops
from tests.kernels.paged_cache import BLOCK_SIZE, empty_cache
from tests.paged_steps import lay_out, scattered_rows

BACKENDS: Mapping[str, Ops] = {"reference": REFERENCE} | {isa: cpu_ops() for isa in ISAS}

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


def half(*shape: int) -> Callable[[torch.Generator], Tensor]:
    return lambda generator: torch.randn(*shape, generator=generator).bfloat16()


def rms(*shape: int, eps: float = 1e-5) -> Callable[[torch.Generator], Norm]:
    return lambda generator: Norm("rms", torch.randn(*shape, generator=generator), None, eps)


def layer(*shape: int) -> Callable[[torch.Generator], Norm]:
    def build(generator: torch.Generator) -> Norm:
        weight, bias = torch.randn(2, *shape, generator=generator)
        return Norm("layer", weight, bias, 1e-5)

    return build


def arguments(*parts: Any) -> Callable[[torch.Generator], Arguments]:
    """A case whose arguments are these: those that are functions are given the generator."""
    return lambda generator: tuple(part(generator) if callable(part) else part for part in parts)


def _linear(
    ops: Ops,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    norm: Norm | None = None,
    activation: str | None = None,
    gated: bool = False,
    residual: Tensor | None = None,
) -> Tensor:
    scheme = str(weight.dtype).removeprefix("torch.")
    packed = ops.pack_linear(weight, bias, scheme, gated=gated)
    return ops.linear(x, packed, norm=norm, activation=activation, residual=residual)


def _heads_case(
    tokens: int, heads: tuple[int, int], size: int, *, turned: int = 0, normed: bool = False
) -> Any:
    """Query, key and value heads of a whole sequence, their norm, and their rotation."""

    def build(generator: torch.Generator) -> Arguments:
        num_heads, num_kv_heads = heads
        x = torch.randn(tokens, num_heads + 2 * num_kv_heads, size, generator=generator)
        weights = rms(num_heads + num_kv_heads, size)(generator) if normed else None
        angles = torch.randn(tokens, turned // 2, generator=generator)
        rotation = (torch.cos(angles), torch.sin(angles)) if turned else None
        return x, weights, rotation, num_kv_heads

    return build


def _rope_write_kv(
    ops: Ops, heads: Tensor, weights: Norm | None, rotation: Any, num_kv_heads: int
) -> tuple[Tensor, Tensor]:
    """The queries, and what they read of a cache that nothing else was written to."""
    rows, num_blocks = scattered_rows([[0] * len(heads)], BLOCK_SIZE)
    _, layout = lay_out(rows, [len(heads)], BLOCK_SIZE)
    cache = empty_cache(ops, num_blocks, num_kv_heads, heads.shape[-1])
    query = ops.rope_write_kv(heads, weights, rotation, cache, layout.slot_mapping)
    shape = AttentionShape(
        num_heads=query.shape[1], num_kv_heads=num_kv_heads, head_dim=heads.shape[-1], scale=0.3
    )
    plan = ops.plan_attention(layout, shape, BLOCK_SIZE)
    return query.clone(), ops.paged_attention(query, cache, plan)


def _experts(
    ops: Ops, x: Tensor, logits: Tensor, gate_up: Tensor, down: Tensor, top_k: int, kind: str
) -> Tensor:
    packed = ops.pack_experts(list(gate_up), list(down), "float32")
    return ops.experts(x, logits, packed, top_k, kind)


def _experts_case(tokens: int, count: int, top_k: int) -> Any:
    shapes = (tokens, 8), (tokens, count), (count, 2 * 12, 8), (count, 8, 12)
    return arguments(*(normal(*shape) for shape in shapes), top_k, "silu")


TABLE: Mapping[str, Entry] = {
    "embedding": Entry(
        lambda ops, *args: ops.embedding(*args),
        lambda ids, table, dtype: torch.cat([table[:0], *(table[i : i + 1] for i in ids)]),
        {
            "some rows": arguments(torch.tensor([3, 0, 3]), normal(5, 7), torch.float32),
            "no row": arguments(torch.tensor([], dtype=torch.int64), normal(5, 7), torch.float32),
            "rows of bfloat16": arguments(torch.tensor([4, 4]), half(5, 33), torch.float32),
            "rows of float16": arguments(
                torch.tensor([4, 0]),
                lambda generator: normal(5, 45)(generator).half(),
                torch.float32,
            ),
            "more rows than a task takes": arguments(
                torch.arange(100) % 7, normal(7, 40), torch.float32
            ),
        },
    ),
    "norm": Entry(
        lambda ops, *args: ops.norm(*args),
        formulas.norm,
        {
            "one token": arguments(normal(1, 8), rms(8)),
            "odd width": arguments(normal(5, 13), rms(13)),
            "many": arguments(normal(67, 896), rms(896)),
            "a norm per head": arguments(normal(5, 3, 8), rms(3, 8)),
            "nearly zero": arguments(torch.full((2, 8), 1e-6), rms(8)),
            "centred, one token": arguments(normal(1, 8), layer(8)),
            "centred, odd width": arguments(normal(5, 13), layer(13)),
            "centred, a norm per head": arguments(normal(5, 3, 8), layer(3, 8)),
        },
    ),
    "linear": Entry(
        _linear,
        formulas.linear,
        {
            "one token": arguments(normal(1, 8), normal(5, 8)),
            "with bias": arguments(normal(3, 8), normal(5, 8), normal(5)),
            "many tokens": arguments(normal(67, 33), normal(65, 33), normal(65)),
            "bfloat16": arguments(normal(3, 8), half(5, 8), normal(5)),
            "after a norm": arguments(normal(3, 33), normal(5, 33), None, rms(33)),
            "after a centring norm": arguments(normal(3, 33), normal(5, 33), None, layer(33)),
            "gated": arguments(normal(7, 33), normal(38, 33), normal(38), None, "silu", True),
            "with a residual": arguments(
                normal(7, 33), normal(19, 33), normal(19), None, None, False, normal(7, 19)
            ),
            "all around": arguments(
                normal(67, 33), normal(38, 33), None, rms(33), "gelu", True, normal(67, 19)
            ),
            **{
                f"then {kind}": arguments(normal(3, 8), normal(7, 8), None, None, kind)
                for kind in formulas.ACTIVATIONS
            },
        },
    ),
    "rope_write_kv": Entry(
        _rope_write_kv,
        formulas.rope_write_kv,
        {
            "one token": _heads_case(1, (1, 1), 8, turned=8),
            "no token": _heads_case(0, (4, 2), 8, turned=8),
            "shared heads": _heads_case(19, (6, 2), 8, turned=8),
            "part of a head turns": _heads_case(5, (3, 3), 80, turned=32),
            "nothing turns": _heads_case(5, (3, 1), 64),
            "normalised heads": _heads_case(33, (4, 2), 64, turned=64, normed=True),
        },
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
    "argmax": Entry(
        lambda ops, *args: ops.argmax(*args), sampling_cases.argmax, sampling_cases.ARGMAX
    ),
    "draw": Entry(lambda ops, *args: ops.draw(*args), sampling_cases.draw, sampling_cases.DRAW),
    "top_logprobs": Entry(
        lambda ops, *args: ops.top_logprobs(*args),
        sampling_cases.top_logprobs,
        sampling_cases.TOP_LOGPROBS,
    ),
}
