"""Outliers moved from activations, where they spoil 8 bits, into weights, where they are harmless.

Rounded with one scale per token, a token's small activations drown beside one large one. What a
norm puts out can be made small again in some channels if the linears that read it make up for it:
the norm's weight is divided, and their columns are multiplied, by the same factors. Factors are
powers of two, so that no bit of any product changes: the float model stays exactly what it was.

Here weights alone decide, without a calibration text, as in https://arxiv.org/abs/1906.04721;
`models/folding.py` does it with measured activations.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from penstock.kernels.quantization import Matrix, Quantized, floats
from penstock.models.slots import ExpertsSlot, NormSlot, Slot, slots
from penstock.models.spec import DecoderSpec, Experts, Gated, Parallel, Sequential


def norm_readers(spec: DecoderSpec) -> Mapping[str, tuple[str, ...]]:
    """The slots that read a norm's output, by the norm's name, where nothing else reads it.

    A norm that comes after its part is missing: what it puts out is also the stream.
    """
    if spec.residual == Sequential("after"):
        return {}
    match spec.mlp:
        case Experts():
            mlp: tuple[str, ...] = ("router", "experts")
        case Gated():
            mlp = ("gate_up",)
        case _:
            mlp = ("up",)
    last = ("head",) if spec.embedding_width is None else ("project_out",)
    readers = {"final_norm": last} if spec.final_norm else {}
    if spec.residual == Parallel("shared"):
        return readers | {"attention_norm": ("qkv", *mlp)}
    return readers | {"attention_norm": ("qkv",), "mlp_norm": mlp}


def groups(spec: DecoderSpec) -> Iterator[list[Slot]]:
    """Every slot of a decoder: a norm together with its readers, and each other slot alone."""
    readers = norm_readers(spec)
    places = slots(spec)
    taken: set[str] = set()
    for slot in places:
        if slot.label in taken:
            continue
        group = [slot]
        if isinstance(slot, NormSlot):
            names = readers.get(slot.name, ())
            group += [each for each in places if each.layer == slot.layer and each.name in names]
        taken.update(each.label for each in group)
        yield group


def smoothed(group: list[Slot], tensors: list[list[Matrix]]) -> list[list[Matrix]]:
    """The tensors of a group of slots, with outliers moved from its norm into the readers, unless
    there are none, or one of them has been rounded already.

    Each slot has a list: its weight and its bias, or every expert's gate and up, then every
    expert's down.
    """
    norm, *readers = tensors
    counts = [slot.count if isinstance(slot, ExpertsSlot) else 1 for slot in group[1:]]
    read = [parts[:count] for parts, count in zip(readers, counts, strict=True)]
    rest = [parts[count:] for parts, count in zip(readers, counts, strict=True)]
    columns = [weight for parts in read for weight in parts]
    if not columns or any(isinstance(weight, Quantized) for weight in columns):
        return tensors
    factors = equalizing_factors(floats(norm[0]), [floats(weight) for weight in columns])
    if bool((factors == 1).all()):
        return tensors
    return [
        [scaled(floats(part), 1 / factors) for part in norm],
        *(
            [*(scaled(floats(weight), factors) for weight in parts), *others]
            for parts, others in zip(read, rest, strict=True)
        ),
    ]


def equalizing_factors(norm: Tensor, readers: Sequence[Tensor]) -> Tensor:
    """By what to divide a norm's weight [D] and multiply the columns of its readers [N, D]: [D]
    float32, powers of two, at least 1.

    In a channel whose norm is strong and whose readers are weak, activations are large to no
    purpose. Where the ratio of the two exceeds the median, it is brought down to it. No channel is
    raised: a weak norm may be holding down an outlier that lives in the stream.
    """
    strength = norm.float().abs()
    need = torch.stack([largest(weight) for weight in readers]).amax(dim=0)
    usable = (strength > 0) & (need > 0)
    if not usable.any():
        return torch.ones_like(strength)
    ratio = (strength / need).sqrt()
    factors = torch.where(usable, ratio / ratio[usable].median(), 1.0)
    return powers_of_two(factors).clamp_(min=1.0)


def powers_of_two(factors: Tensor) -> Tensor:
    """For each factor the nearest power of two, by ratio."""
    return torch.exp2(torch.round(torch.log2(factors)))


def scaled(tensor: Tensor, factors: Tensor) -> Tensor:
    """The last axis of a tensor times powers of two, exactly; float16 widens, having too few."""
    wide = tensor.float() if tensor.dtype == torch.float16 else tensor
    return wide * factors.to(wide.dtype)


def largest(weight: Tensor) -> Tensor:
    """The largest magnitude in each column of weight [N, D]: [D] float32."""
    return weight.abs().amax(dim=0).float()
