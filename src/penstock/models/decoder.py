"""The decoder: token ids in, hidden states and logits out, keys and values left in the cache."""

from collections.abc import Callable

import torch
from torch import Tensor

from penstock.kernels.ops import Ops
from penstock.kernels.paged_attention.contract import AttentionShape
from penstock.kernels.step_layout import StepLayout
from penstock.models.attention import Step
from penstock.models.kv_cache import KVCache
from penstock.models.layers import make_layer
from penstock.models.norms import make_norm
from penstock.models.positions import make_positions
from penstock.models.spec import DecoderSpec
from penstock.models.weights import Weights


class Decoder:
    """Every family's forward pass. What varies was chosen when the object was made."""

    def __init__(
        self,
        spec: DecoderSpec,
        weights: Weights,
        ops: Ops,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """dtype is that of the hidden states."""
        self.spec = spec
        self.dtype = dtype
        self.ops = ops
        self.embedding = weights.tables["embedding"]
        self.positions = make_positions(spec, weights.tables.get("positions"), device, ops)
        windows = spec.windows or (None,) * spec.num_layers
        kinds = list(dict.fromkeys(windows))
        self.shapes = [attention_shape(spec, window, self.positions.key_bias) for window in kinds]
        self.layers = [
            make_layer(spec, weights, layer, ops, kinds.index(window))
            for layer, window in enumerate(windows)
        ]
        self.final_norm: Callable[[Tensor], Tensor] = _unchanged
        if spec.final_norm:
            final_norm = make_norm(spec.norm, weights.norms["final_norm"])
            self.final_norm = lambda x: ops.norm(x, final_norm)
        self.project_in = _projection("project_in", weights, ops)
        self.project_out = _projection("project_out", weights, ops)
        self.head = weights.linears["head"]

    def __call__(self, token_ids: Tensor, layout: StepLayout, cache: KVCache) -> Tensor:
        """Hidden states [T, hidden], normalised, of token_ids [T] int64 that live as laid out."""
        step = Step(
            layout.slot_mapping,
            self.positions.rotation(layout.positions),
            [self.ops.plan_attention(layout, shape, cache.block_size) for shape in self.shapes],
        )
        x = self.project_in(self.ops.embedding(token_ids, self.embedding, self.dtype))
        x = self.positions.enter(x, layout.positions)
        for layer, layer_cache in zip(self.layers, cache.layers, strict=True):
            x = layer(x, step, layer_cache)
        return self.final_norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """The score of each token of the vocabulary after hidden [R, hidden]: [R, V] float32."""
        return self.ops.linear(self.project_out(hidden), self.head).float()


def attention_shape(
    spec: DecoderSpec, window: int | None, key_bias: Tensor | None
) -> AttentionShape:
    """What attention is told of the layers that see `window` tokens."""
    return AttentionShape(
        num_heads=spec.num_heads,
        num_kv_heads=spec.num_kv_heads,
        head_dim=spec.head_dim,
        scale=spec.head_dim**-0.5,
        window=window,
        key_bias=key_bias,
    )


def _projection(name: str, weights: Weights, ops: Ops) -> Callable[[Tensor], Tensor]:
    """A linear between the width of the embedding and that of the stream, where these differ."""
    packed = weights.linears.get(name)
    return _unchanged if packed is None else lambda x: ops.linear(x, packed)


def _unchanged(x: Tensor) -> Tensor:
    return x
