"""Checkpoints whose linears are integers: the compressed-tensors format, which vLLM loads as well
(https://github.com/vllm-project/compressed-tensors).

config.json names one scheme for all linears but those it ignores. Of the format's many variants two
are read and written: "int-quantized", with 8 bits and a scale per output, and "pack-quantized",
with 4 bits, eight of them in an int32, and a scale per group of inputs.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from penstock.kernels.quantization import GROUP_SIZE, INT8_MAX, Quantized
from penstock.models.checkpoint import QUANTIZED, Checkpoint
from penstock.models.safetensors_file import Stored
from penstock.vocabulary.errors import ModelError

_PER_WORD = 8
_PARTS = ("weight", "weight_packed", "weight_scale", "weight_shape")


@dataclass(frozen=True, slots=True)
class Compression:
    """How the linears of a checkpoint are kept: as `weights` in 8 bits, or in 4 with a scale for
    every `group_size` inputs; None means one for each output.
    """

    weights: Literal["int8", "int4"]
    group_size: int | None


def read_compression(found: Any) -> Compression | None:
    """What config.json's quantization_config asks for; None without one. Raises `ModelError` for
    what is not supported, by name.
    """
    if found is None:
        return None
    config = _section("as a whole", found)
    _refuse("", config, quant_method="compressed-tensors")
    _refuse("", config, kv_cache_scheme=None, sparsity_config=None, transform_config=None)
    groups = _section("config_groups", config.get("config_groups"))
    if len(groups) != 1:
        raise _unsupported("config_groups", list(groups))
    group = _section("config_groups", next(iter(groups.values())))
    weights = _section("weights", group.get("weights"))
    activations = _section("input_activations", group.get("input_activations") or {})
    _refuse("weights.", weights, type="int", symmetric=True, dynamic=False)
    _refuse("input_activations.", activations, num_bits=8, type="int", dynamic=True)
    if weights.get("actorder") not in (None, False, "weight", "static"):
        raise _unsupported("weights.actorder", weights["actorder"])
    return _scheme(group.get("format") or config.get("format"), weights)


def _scheme(form: Any, weights: dict[str, Any]) -> Compression:
    bits, strategy, size = (weights.get(name) for name in ("num_bits", "strategy", "group_size"))
    if (form, bits, strategy) == ("int-quantized", 8, "channel"):
        return Compression("int8", None)
    if (form, bits, strategy) == ("pack-quantized", 4, "channel"):
        return Compression("int4", None)
    if (form, bits, strategy) == ("pack-quantized", 4, "group"):
        if not isinstance(size, int) or size <= 0 or size % GROUP_SIZE:
            raise _unsupported("weights.group_size", size)
        return Compression("int4", size)
    raise _unsupported("format", f"{form} with {bits} bits per {strategy}")


def _section(name: str, found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise _unsupported(name, found)
    return found


def _refuse(prefix: str, section: dict[str, Any], **supported: Any) -> None:
    """Raise for the first of these options that is there with another value."""
    for name, value in supported.items():
        found = section.get(name, value)
        if found != value and found not in ({}, []):
            raise _unsupported(prefix + name, found)


def _unsupported(name: str, value: Any) -> ModelError:
    return ModelError(
        f"config.json: quantization_config, {name}: {value!r} is not supported.",
        remedy="Supported are compressed-tensors with int8 weights per channel, or int4 in groups "
        f"of a multiple of {GROUP_SIZE}; or take the unquantized model and use penstock quantize.",
    )


def describe(compression: Compression, ignored: list[str]) -> dict[str, Any]:
    """The quantization_config of a checkpoint whose linears are kept like this, all but those of
    these names.
    """
    bits = 8 if compression.weights == "int8" else 4
    activations = _numbers(8, "token", None, dynamic=True) if bits == 8 else None
    strategy = "channel" if compression.group_size is None else "group"
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized" if bits == 8 else "pack-quantized",
        "quantization_status": "compressed",
        "kv_cache_scheme": None,
        "ignore": ignored,
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": _numbers(bits, strategy, compression.group_size, dynamic=False),
                "input_activations": activations,
                "output_activations": None,
            }
        },
    }


def _numbers(bits: int, strategy: str, group_size: int | None, *, dynamic: bool) -> dict[str, Any]:
    return {
        "num_bits": bits,
        "type": "int",
        "symmetric": True,
        "strategy": strategy,
        "group_size": group_size,
        "dynamic": dynamic,
    }


def packed(module: str, weight: Quantized) -> dict[str, Tensor]:
    """The tensors that a checkpoint has for a module whose weight is kept in integers."""
    if weight.group_size is None:
        scale = weight.scale[:, None]
        return {f"{module}.weight": weight.values, f"{module}.weight_scale": scale}
    shape = torch.tensor(weight.values.shape)
    return {
        f"{module}.weight_packed": _pack(weight.values),
        f"{module}.weight_scale": weight.scale.bfloat16(),
        f"{module}.weight_shape": shape,
    }


class CompressedCheckpoint(Checkpoint):
    """A checkpoint in which what is kept as integers with scales has one name, `<module>.weight`,
    and reads as `Quantized`.
    """

    def __init__(self, model_dir: Path, compression: Compression) -> None:
        super().__init__(model_dir)
        self._compression = compression
        self._parts: dict[str, dict[str, Stored]] = {}
        suffix = ".weight_scale"
        for name in [each for each in self.tensors if each.endswith(suffix)]:
            self._hide(name.removesuffix(suffix))

    def read(self, name: str) -> Tensor | Quantized:
        """One tensor, in the type it is stored in, or one matrix of integers with its scales."""
        parts = self._parts.get(name)
        if parts is None:
            return super().read(name)
        scale = parts["weight_scale"].read().float()
        if self._compression.weights == "int8":
            values = parts["weight"].read()
            # Some writers go down to -128, but kernels take a weight's magnitude to fit 7 bits.
            return Quantized(values.clamp(min=-INT8_MAX), scale.flatten())
        words = parts["weight_packed"].read()
        return _grouped(_unpack(words, self.tensors[name].shape[1]), scale, self._compression)

    def extents(self, name: str) -> list[Stored]:
        """What must be read of the files for the tensor of this name."""
        parts = self._parts.get(name)
        return super().extents(name) if parts is None else list(parts.values())

    def _hide(self, module: str) -> None:
        """Put one tensor in the place of a module's parts."""
        parts = {
            part: self.tensors.pop(f"{module}.{part}")
            for part in _PARTS
            if f"{module}.{part}" in self.tensors
        }
        name = f"{module}.weight"
        kept = parts.get("weight" if self._compression.weights == "int8" else "weight_packed")
        if kept is None:
            raise ModelError(
                f"The checkpoint has {module}.weight_scale, but not the integers it belongs to.",
                remedy="It is damaged, or config.json describes another format.",
            )
        shape = kept.shape
        if self._compression.weights == "int4":
            shape = self._logical_shape(module, parts, kept)
        self._check_parts(module, parts, shape)
        dtype = QUANTIZED[self._compression.weights]
        self.tensors[name] = dataclasses.replace(kept, shape=shape, dtype=dtype)
        self._parts[name] = parts

    def _logical_shape(
        self, module: str, parts: dict[str, Stored], words: Stored
    ) -> tuple[int, ...]:
        """What weight_shape says, if the words have room for that."""
        if "weight_shape" not in parts:
            raise ModelError(f"The checkpoint lacks {module}.weight_shape.")
        found = parts["weight_shape"].read().flatten().tolist()
        rows, columns = found if len(found) == 2 else (-1, -1)
        if words.dtype != "I32" or words.shape != (rows, -(-columns // _PER_WORD)):
            raise ModelError(
                f"{module}.weight_packed is {words.dtype} {list(words.shape)}, which is not what "
                f"weight_shape, {found}, needs."
            )
        return rows, columns

    def _check_parts(self, module: str, parts: dict[str, Stored], shape: tuple[int, ...]) -> None:
        scale, size = parts["weight_scale"], self._compression.group_size
        if len(shape) != 2:
            raise ModelError(f"{module}.weight has scales, but is no matrix: it is {list(shape)}.")
        groups = 1 if size is None else -(-shape[1] // size)
        if scale.dtype not in ("F32", "BF16", "F16") or scale.shape != (shape[0], groups):
            raise ModelError(
                f"{module}.weight_scale is {scale.dtype} {list(scale.shape)} where "
                f"{[shape[0], groups]} floats are expected."
            )
        if self._compression.weights == "int8" and parts["weight"].dtype != "I8":
            raise ModelError(f"{module}.weight is {parts['weight'].dtype} where I8 is expected.")


def _grouped(values: Tensor, scale: Tensor, compression: Compression) -> Quantized:
    """Groups as large as ours, whatever theirs: a larger one is several with the same scale. What
    bfloat16 cannot hold of a scale is lost, which is little beside the rounding to 4 bits.
    """
    columns = values.shape[1]
    times = -(-(compression.group_size or columns) // GROUP_SIZE)
    repeated = scale.repeat_interleave(times, dim=1)[:, : -(-columns // GROUP_SIZE)]
    return Quantized(values, repeated.bfloat16().float(), GROUP_SIZE)


def _pack(values: Tensor) -> Tensor:
    """values [N, K] in -8..7 as [N, ceil(K / 8)] int32, the first in the lowest bits, 8 added."""
    rows, columns = values.shape
    nibbles = functional.pad(values + 8, (0, -columns % _PER_WORD)).view(rows, -1, _PER_WORD)
    words = torch.zeros(nibbles.shape[:2], dtype=torch.int32, device=values.device)
    for place in range(_PER_WORD):
        words |= nibbles[:, :, place].int() << 4 * place
    return words


def _unpack(words: Tensor, columns: int) -> Tensor:
    """The inverse of `_pack`: int8 [N, columns]."""
    nibbles = torch.stack([words >> 4 * place & 15 for place in range(_PER_WORD)], dim=-1)
    return (nibbles - 8).to(torch.int8).flatten(1)[:, :columns]
