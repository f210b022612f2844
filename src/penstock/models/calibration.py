"""What the activations of a model look like, measured on texts, one layer in memory at a time."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from penstock.kernels.norm.contract import Norm
from penstock.kernels.ops import Ops, PackedLinear
from penstock.kernels.step_layout import StepLayout
from penstock.models.attention import Step
from penstock.models.decoder import attention_shape
from penstock.models.kv_cache import KVCache
from penstock.models.layers import make_layer
from penstock.models.positions import make_positions
from penstock.models.spec import DecoderSpec
from penstock.models.weights import Weights

_BLOCK_SIZE = 16


class Observer:
    """Ops that remember the largest magnitude which each linear met in each of its inputs."""

    def __init__(self, ops: Ops) -> None:
        self.ops = replace(ops, linear=self._linear)
        self._under = ops
        self._met: list[tuple[PackedLinear, Tensor]] = []

    def largest(self, packed: PackedLinear) -> Tensor:
        """[in_features] float32."""
        found = [magnitudes for linear, magnitudes in self._met if linear is packed]
        return torch.stack(found).amax(dim=0)

    def forget(self) -> None:
        """Begin anew, with other linears."""
        self._met.clear()

    def _linear(
        self,
        x: Tensor,
        packed: PackedLinear,
        *,
        norm: Norm | None = None,
        activation: str | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        h = x if norm is None else self._under.norm(x, norm)
        self._met.append((packed, h.abs().amax(dim=0).float()))
        return self._under.linear(h, packed, activation=activation, residual=residual)


class Stream:
    """Texts on their way through a decoder: each waits, as hidden states, for the next layer."""

    def __init__(
        self,
        spec: DecoderSpec,
        tables: dict[str, Tensor],
        project_in: PackedLinear | None,
        texts: Sequence[Sequence[int]],
        ops: Ops,
        device: torch.device,
    ) -> None:
        """tables has the embedding's, and the positions' where these are learned; project_in leads
        from the width of the embedding to that of the stream, where these differ.
        """
        self.spec = spec
        self.ops = ops
        self.positions = make_positions(spec, tables.get("positions"), device, ops)
        longest = max(map(len, texts))
        one_layer = replace(spec, num_layers=1, windows=())
        num_blocks = -(-longest // _BLOCK_SIZE)
        cache = KVCache(one_layer, num_blocks, _BLOCK_SIZE, "float32", ops=ops, device=device)
        self.cache = cache.layers[0]
        self.layouts = [_layout(len(text), device) for text in texts]
        self.states: list[Tensor] = []
        for text, layout in zip(texts, self.layouts, strict=True):
            token_ids = torch.tensor(text, device=device)
            x = ops.embedding(token_ids, tables["embedding"], torch.float32)
            x = x if project_in is None else ops.linear(x, project_in)
            self.states.append(self.positions.enter(x, layout.positions))

    def through(self, weights: Weights, layer: int) -> None:
        """Compute one layer, whose weights these are."""
        windows = self.spec.windows or (None,) * self.spec.num_layers
        shape = attention_shape(self.spec, windows[layer], self.positions.key_bias)
        compute = make_layer(self.spec, weights, layer, self.ops, plan_number=0)
        for number, layout in enumerate(self.layouts):
            step = Step(
                layout.slot_mapping,
                self.positions.rotation(layout.positions),
                [self.ops.plan_attention(layout, shape, _BLOCK_SIZE)],
            )
            self.states[number] = compute(self.states[number], step, self.cache)


def _layout(length: int, device: torch.device) -> StepLayout:
    """One whole text in a cache of its own."""
    places = torch.arange(length, device=device)
    return StepLayout(
        positions=places,
        slot_mapping=places,
        block_table=torch.arange(-(-length // _BLOCK_SIZE), device=device)[None],
        cu_seqlens_q=torch.tensor([0, length], dtype=torch.int32, device=device),
        context_lens=torch.tensor([length], dtype=torch.int32, device=device),
        query_lens_host=[length],
        context_lens_host=[length],
    )
