"""Every kernel on the GPU against the formulas of the conformance table, and in low precision
against the reference.
"""

import time
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from penstock.kernels.backends import with_flashinfer
from penstock.kernels.norm.contract import Norm
from penstock.kernels.ops import REFERENCE, Ops
from scripts.gpu_check.part import Part


def run(part: Part) -> None:
    """All cases: how many are right, and which are not."""
    from penstock.kernels.triton.backend import FP8_CAPABILITY, kernels

    device = torch.device(part.scale.device)
    has_fp8 = part.scale.capability >= FP8_CAPABILITY
    usual, fixed = (kernels(has_fp8=has_fp8, deterministic=each) for each in (False, True))
    wrong = part.wrong
    checks = (
        *_checks(usual, device, has_fp8=has_fp8),
        *_fixed_checks(fixed, device, has_fp8=has_fp8),
        *_flashinfer_checks(usual, device),
    )
    for count, (name, check) in enumerate(checks[:: part.scale.stride], 1):
        if time.monotonic() > part.deadline:
            wrong.append("the rest: no time was left")
            break
        try:
            check()
        except Exception as error:  # whatever a kernel does on new hardware is a finding
            wrong.append(f"{name}: {type(error).__name__}: {str(error).strip()[:300]}")
            print(wrong[-1], flush=True)
        part.summary.update({"cases": count, "wrong": len(wrong)})


def moved(value: Any, device: torch.device) -> Any:
    """The same, with all tensors inside on the device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple | list):
        return type(value)(moved(each, device) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        changes = {each.name: moved(getattr(value, each.name), device) for each in fields(value)}
        return replace(value, **changes)
    return value


def _checks(ops: Ops, device: torch.device, *, has_fp8: bool) -> Iterator[tuple[str, Any]]:
    table = import_module("tests.kernels.table").TABLE
    for op, entry in table.items():
        for name in entry.cases:
            yield f"{op}, {name}", lambda entry=entry, name=name: _case(entry, name, ops, device)
    schemes = ["bfloat16", "int8", "int4", *["fp8"] * has_fp8]
    for scheme in schemes:
        for rows in (1, 16, 17, 100, 300):
            yield f"linear, {scheme}, {rows}", lambda s=scheme, r=rows: _linear(ops, s, r, device)
    attention = import_module("tests.kernels.attention_cases")
    for dtype in [each for each in ops.kv_dtypes if has_fp8 or each != "fp8"]:
        for size in (64, 80, 128):
            build = attention.case((1, 900), (70, 300), (1, 3), heads=(8, 2), size=size)
            yield (
                f"attention over {dtype}, {size}",
                lambda b=build, d=dtype: _attention(attention, ops, b, d, device),
            )


def _fixed_checks(ops: Ops, device: torch.device, *, has_fp8: bool) -> Iterator[tuple[str, Any]]:
    """Of deterministic operations: the cases of those that are others than usual, and that a row's
    bits are its own.
    """
    table = import_module("tests.kernels.table").TABLE
    for op in ("linear", "experts", "paged_attention"):
        for name in table[op].cases:
            yield (
                f"deterministic {op}, {name}",
                lambda entry=table[op], name=name: _case(entry, name, ops, device),
            )
    bits = import_module("tests.kernels.same_bits")
    for scheme in ("float32", "bfloat16", "int8", "int4", *["fp8"] * has_fp8):
        dtype = torch.float32 if scheme == "float32" else torch.bfloat16
        yield f"bits of linear, {scheme}", partial(bits.check_linear, ops, scheme, dtype, device)
        yield f"bits of experts, {scheme}", partial(bits.check_experts, ops, scheme, dtype, device)
    attention = import_module("tests.kernels.attention_cases")
    kinds: list[dict[str, Any]] = [{}, {"window": 300}, {"soft_cap": 20.0, "sinks": True}]
    for kept in ops.kv_dtypes:
        for options in kinds:
            slices = (1, 900), (70, 600), (9, 9)
            build = attention.case(*slices, heads=(8, 2), size=64, **options)
            yield (
                f"bits of attention over {kept}, {options}",
                partial(_attention_bits, bits, ops, build, kept, device),
            )


def _flashinfer_checks(ops: Ops, device: torch.device) -> Iterator[tuple[str, Any]]:
    """Where it is installed. It may take minutes to compile its kernels when it is first used."""
    if find_spec("flashinfer") is None:
        return
    ops = with_flashinfer(ops, torch.bfloat16)
    attention = import_module("tests.kernels.attention_cases")
    kinds: list[dict[str, Any]] = [
        {"size": 128},
        {"size": 64},
        {"size": 64, "window": 50},
        {"size": 128, "soft_cap": 20.0},
    ]
    for options in kinds:
        build = attention.case((1, 900), (70, 300), (3, 3), heads=(8, 2), **options)
        yield (
            f"attention by FlashInfer, {options}",
            lambda b=build: _attention(attention, ops, b, "bfloat16", device),
        )


def _attention_bits(bits: Any, ops: Ops, build: Any, dtype: str, device: torch.device) -> None:
    values = build(torch.Generator().manual_seed(0))
    with torch.device(device):
        query, *rest = moved(values, device)
        bits.check_attention(ops, (query.bfloat16(), *rest), dtype)


def _case(entry: Any, name: str, ops: Ops, device: torch.device) -> None:
    values = entry.cases[name](torch.Generator().manual_seed(0))
    copies = [each.clone() if isinstance(each, Tensor) else each for each in values]
    expected = entry.formula(*copies)
    with torch.device(device):
        actual = entry.call(ops, *moved(tuple(values), device))
    _compare(actual, expected, max(entry.tolerance, 2e-5))


def _linear(ops: Ops, scheme: str, rows: int, device: torch.device) -> None:
    """Against float64 on the numbers that the weights stand for."""
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randn(512, 768, generator=generator) / 28
    x = torch.randn(rows, 768, generator=generator).bfloat16()
    norm = Norm("rms", torch.ones(768).bfloat16(), None, 1e-5)
    packed = REFERENCE.pack_linear(weight, None, "float32" if scheme == "int4" else scheme)
    if scheme == "int4":
        quantization = import_module("penstock.kernels.quantization")
        kept = quantization.dequantize(quantization.quantize_groups(weight))
        packed = REFERENCE.pack_linear(kept, None, "float32")
    expected = REFERENCE.linear(x.float(), packed, norm=replace(norm, weight=norm.weight.float()))
    ours = ops.pack_linear(weight.to(device), None, scheme)
    actual = ops.linear(x.to(device), ours, norm=moved(norm, device))
    _compare(actual.float(), expected, 6e-2)


def _attention(attention: Any, ops: Ops, build: Any, dtype: str, device: torch.device) -> None:
    values = build(torch.Generator().manual_seed(0))
    expected = attention.attend_formula(*values)
    with torch.device(device):
        query, *rest = moved(values, device)
        actual = attention.attend(ops, query.bfloat16(), *rest, dtype=dtype)
    _compare(actual.float(), expected, 0.2 if dtype == "fp8" else 5e-2)


def _compare(actual: Any, expected: Any, tolerance: float) -> None:
    pairs = zip(
        actual if isinstance(actual, tuple) else (actual,),
        expected if isinstance(expected, tuple) else (expected,),
        strict=True,
    )
    for ours, theirs in pairs:
        torch.testing.assert_close(
            ours.cpu().double(), theirs.cpu().double(), atol=tolerance, rtol=tolerance
        )
