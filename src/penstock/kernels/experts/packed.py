"""The linears of experts as something that can be written to a file and mapped back."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from torch import Tensor

from penstock.kernels.packed import Fact, Packed, fact

L = TypeVar("L")


def experts_parts(gate_up: Sequence[Packed], down: Sequence[Packed]) -> dict[str, Tensor]:
    """The parts of every expert's linears, each by the linear's name and the expert's number."""
    return {
        f"{name}.{expert}.{part}": tensor
        for name, linears in (("gate_up", gate_up), ("down", down))
        for expert, linear in enumerate(linears)
        for part, tensor in linear.parts().items()
    }


def experts_facts(down: Sequence[Packed]) -> dict[str, Fact]:
    """How many they are, their sizes, and what their linears have in common."""
    facts = down[0].facts()
    return {
        "count": len(down),
        "hidden": facts.pop("out_features"),
        "intermediate": facts.pop("in_features"),
    } | facts


def restore_experts_linears(
    facts: Mapping[str, Fact],
    parts: Mapping[str, Tensor],
    restore_linear: Callable[[Mapping[str, Fact], Mapping[str, Tensor]], L],
) -> tuple[tuple[L, ...], tuple[L, ...]]:
    """Every expert's gate_up and every expert's down; the parts are kept, not copied. Raises
    ValueError if facts and parts do not belong together.
    """
    hidden, inner = fact(facts, "hidden", int), fact(facts, "intermediate", int)

    def linears(name: str, rows: int, columns: int, *, gated: bool) -> Iterator[L]:
        own: dict[str, Fact] = {"out_features": rows, "in_features": columns, "gated": gated}
        for expert in range(fact(facts, "count", int)):
            prefix = f"{name}.{expert}."
            found = {part[len(prefix) :]: parts[part] for part in parts if part.startswith(prefix)}
            yield restore_linear({**facts, **own}, found)

    return (
        tuple(linears("gate_up", 2 * inner, hidden, gated=True)),
        tuple(linears("down", hidden, inner, gated=False)),
    )
