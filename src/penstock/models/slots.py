"""The places a spec leaves for weights: their names, sizes, and how ranks would share them."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from penstock.models.spec import DecoderSpec, Experts, Gated, LayerNorm, Learned, Parallel

Split: TypeAlias = Literal["column", "row"] | None
"""How ranks divide a linear: by its outputs, by its inputs, or not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    name: str
    layer: int | None = None

    @property
    def label(self) -> str:
        """The slot's name in the whole decoder."""
        return self.name if self.layer is None else f"layers.{self.layer}.{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearSlot(_Named):
    """A matrix [out_features, in_features], with a bias or without. The rows of a gated one are a
    gate's, then as many of the values it gates.
    """

    out_features: int
    in_features: int
    bias: bool = False
    gated: bool = False
    split: Split = None

    @property
    def elements(self) -> int:
        return self.out_features * self.in_features


@dataclass(frozen=True, slots=True, kw_only=True)
class NormSlot(_Named):
    """A weight [width], and a bias [width] or none."""

    width: int
    bias: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSlot(_Named):
    """A table [rows, width] whose rows are looked up."""

    rows: int
    width: int
    split: Split = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertsSlot(_Named):
    """`count` gated MLPs between `hidden` and `intermediate`, without biases."""

    count: int
    hidden: int
    intermediate: int


Slot: TypeAlias = LinearSlot | NormSlot | TableSlot | ExpertsSlot


def slots(spec: DecoderSpec) -> list[Slot]:
    """Every slot of a decoder, in the order in which it uses them. A tied head has one too, though
    its matrix is the embedding's.
    """
    width = spec.embedding_width or spec.hidden
    places: list[Slot] = [
        TableSlot(name="embedding", rows=spec.vocab_size, width=width, split="column")
    ]
    if isinstance(spec.position, Learned):
        rows = spec.max_positions + spec.position.offset
        places.append(TableSlot(name="positions", rows=rows, width=spec.hidden))
    if spec.embedding_width is not None:
        places.append(LinearSlot(name="project_in", out_features=spec.hidden, in_features=width))
    for layer in range(spec.num_layers):
        places += [*_norms(spec, layer), *_attention(spec, layer), *_mlp(spec, layer)]
    if spec.final_norm:
        places.append(_norm("final_norm", spec, spec.hidden))
    if spec.embedding_width is not None:
        places.append(LinearSlot(name="project_out", out_features=width, in_features=spec.hidden))
    head = LinearSlot(
        name="head",
        out_features=spec.vocab_size,
        in_features=width,
        bias=spec.head_bias and not spec.tied,
        split="column",
    )
    return [*places, head]


def _norm(name: str, spec: DecoderSpec, width: int, layer: int | None = None) -> NormSlot:
    return NormSlot(name=name, layer=layer, width=width, bias=isinstance(spec.norm, LayerNorm))


def _norms(spec: DecoderSpec, layer: int) -> list[Slot]:
    if spec.residual == Parallel("shared"):
        return [_norm("attention_norm", spec, spec.hidden, layer)]
    return [_norm(name, spec, spec.hidden, layer) for name in ("attention_norm", "mlp_norm")]


def _attention(spec: DecoderSpec, layer: int) -> list[Slot]:
    names = ("q_norm", "k_norm") if spec.qk_norm else ()
    return [
        LinearSlot(
            name="qkv",
            layer=layer,
            out_features=(spec.num_heads + 2 * spec.num_kv_heads) * spec.head_dim,
            in_features=spec.hidden,
            bias=spec.qkv_bias,
            split="column",
        ),
        *(_norm(name, spec, spec.head_dim, layer) for name in names),
        LinearSlot(
            name="out",
            layer=layer,
            out_features=spec.hidden,
            in_features=spec.num_heads * spec.head_dim,
            bias=spec.out_bias,
            split="row",
        ),
    ]


def _mlp(spec: DecoderSpec, layer: int) -> list[Slot]:
    mlp, hidden = spec.mlp, spec.hidden
    if isinstance(mlp, Experts):
        return [
            LinearSlot(name="router", layer=layer, out_features=mlp.count, in_features=hidden),
            ExpertsSlot(
                name="experts",
                layer=layer,
                count=mlp.count,
                hidden=hidden,
                intermediate=mlp.intermediate,
            ),
        ]
    up, rows = ("gate_up", 2) if isinstance(mlp, Gated) else ("up", 1)
    return [
        LinearSlot(
            name=up,
            layer=layer,
            out_features=rows * mlp.intermediate,
            in_features=hidden,
            bias=mlp.bias,
            gated=rows == 2,
            split="column",
        ),
        LinearSlot(
            name="down",
            layer=layer,
            out_features=hidden,
            in_features=mlp.intermediate,
            bias=mlp.bias,
            split="row",
        ),
    ]
