"""What a step must do at least: multiplications, and bytes that come from memory.

Held against what the machine can do in the same time, this says how much of it is used: the share
of its arithmetic (MFU) and of its bandwidth (MBU).
"""

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from penstock.engine.settings import WEIGHT_BYTES, Resolved
from penstock.models.loading import scheme_of
from penstock.models.slots import ExpertsSlot, LinearSlot, slots
from penstock.models.spec import DecoderSpec, Experts
from penstock.scheduling.sequence import Plan, Slice


class Cost(NamedTuple):
    """multiply_adds counts a multiplication and the addition of its product as one."""

    multiply_adds: int = 0
    bytes_read: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """What the steps of one decoder cost. Weights are read once a step, keys and values once a
    slice; what each token multiplies with counts for each.
    """

    dense: int
    """Elements of the linears that every token goes through, the head excepted."""
    dense_bytes: float
    expert: int
    """Elements of one expert, in all layers together."""
    expert_bytes: float
    num_experts: int
    top_k: int
    head: int
    head_bytes: float
    windows: tuple[tuple[int | None, int], ...]
    """How far back layers see, and how many of them."""
    query_width: int
    """Query heads times their size."""
    kv_bytes: float
    """Keys and values of one token in one layer."""

    def of(self, plan: Plan) -> Cost:
        """The cost of computing a plan."""
        num_tokens = plan.num_tokens
        num_rows = sum(part.emits for part in plan.slices)
        pairs = keys = 0
        for window, num_layers in self.windows:
            pairs += num_layers * sum(_pairs(part, window) for part in plan.slices)
            keys += num_layers * sum(_keys(part, window) for part in plan.slices)
        active = self.dense + self.top_k * self.expert
        touched = min(self.num_experts, num_tokens * self.top_k)
        weights = self.dense_bytes + touched * self.expert_bytes
        weights += self.head_bytes if num_rows else 0
        return Cost(
            num_tokens * active + num_rows * self.head + 2 * self.query_width * pairs,
            int(weights + keys * self.kv_bytes),
        )


def cost_model(spec: DecoderSpec, resolved: Resolved) -> CostModel:
    """The costs of a decoder whose weights, keys and values are kept as resolved."""
    elements: Counter[str] = Counter()
    num_bytes: dict[str, float] = {"dense": 0.0, "expert": 0.0, "head": 0.0}
    for slot in slots(spec):
        if isinstance(slot, LinearSlot):
            kind, size = "head" if slot.name == "head" else "dense", slot.elements
        elif isinstance(slot, ExpertsSlot):
            kind, size = "expert", 3 * slot.hidden * slot.intermediate
        else:
            continue
        elements[kind] += size
        num_bytes[kind] += size * WEIGHT_BYTES[scheme_of(slot.name, resolved.weights)]
    if spec.tied:
        elements["head"] = spec.vocab_size * (spec.embedding_width or spec.hidden)
        num_bytes["head"] = elements["head"] * WEIGHT_BYTES[scheme_of("head", resolved.weights)]
    mixture = spec.mlp if isinstance(spec.mlp, Experts) else None
    return CostModel(
        dense=elements["dense"],
        dense_bytes=num_bytes["dense"],
        expert=elements["expert"],
        expert_bytes=num_bytes["expert"],
        num_experts=mixture.count if mixture else 0,
        top_k=mixture.top_k if mixture else 0,
        head=elements["head"],
        head_bytes=num_bytes["head"],
        windows=tuple(Counter(spec.windows or (None,) * spec.num_layers).items()),
        query_width=spec.num_heads * spec.head_dim,
        kv_bytes=resolved.block_bytes / resolved.block_size / spec.num_layers,
    )


def _keys(part: Slice, window: int | None) -> int:
    """Keys that a slice reads in one layer."""
    end = part.start + part.count
    return end if window is None else min(end, part.count + window - 1)


def _pairs(part: Slice, window: int | None) -> int:
    """Products of a query and a key in a slice, in one layer and for one head."""
    end = part.start + part.count
    if window is None or end <= window:
        return (part.start + 1 + end) * part.count // 2
    growing = max(0, window - part.start)
    return (part.start + 1 + part.start + growing) * growing // 2 + (part.count - growing) * window
