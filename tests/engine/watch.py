"""Notices what a GPU would have to be waited for, where there is none: on a CPU everything is there
when it is asked for.

Two nets, for torch does some of it below its dispatcher: which operators are called, and which
functions. Neither sees a kernel of our own that waits, nor a number that was made on the host and
is taken for one of the device's.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
READING = {
    *(aten._local_scalar_dense, aten.equal, aten.allclose, aten.nonzero, aten.masked_select),
    *(aten._unique, aten._unique2, aten.unique_dim, aten.unique_consecutive),
    *(aten.unique_dim_consecutive, aten.bincount),
}
"""The host must know what they found, or how much of it there is."""
READING_NUMBERS = {
    *(aten.masked_fill.Tensor, aten.masked_fill_.Tensor),
    *(aten.index_fill.int_Tensor, aten.index_fill_.int_Tensor),
}
"""They take a number from a tensor."""
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
COPYING = {"tolist", "numpy", "__array__", "cpu", "cuda", "tensor", "as_tensor"}
"""Functions that carry numbers from one memory to the other, and wait until they are there."""


class WouldWait(Exception):
    """Somebody asked for what a GPU may not have computed yet."""


class Watch:
    """Raises `WouldWait` for what is computed within `on`, unless it is within `paused`."""

    def __init__(self) -> None:
        self._is_paused = False

    @contextmanager
    def on(self) -> Iterator[None]:
        with _Functions(self), _Operators(self):
            yield

    @contextmanager
    def paused(self) -> Iterator[None]:
        before, self._is_paused = self._is_paused, True
        try:
            yield
        finally:
            self._is_paused = before

    def note(self, name: object, waits: bool) -> None:
        if waits and not self._is_paused:
            raise WouldWait(str(name))


class _Operators(TorchDispatchMode):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: to skip it would be to import it, which takes seconds."""
        return False

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        self._watch.note(func, _waits(func, args, kwargs))
        with self:  # without gradients, operators made of others arrive whole
            found = func.decompose(*args, **kwargs)
        return func(*args, **kwargs) if found is NotImplemented else found


def _waits(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if func is aten.repeat_interleave.Tensor:
        return kwargs.get("output_size") is None
    if func.overloadpacket in INDEXING:
        return any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in args[1])
    return func.overloadpacket in READING or func in READING_NUMBERS


class _Functions(TorchFunctionMode):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        given = (*args[1:], *kwargs.values())
        goes_elsewhere = name == "to" and any(
            isinstance(each, str | torch.device) for each in given
        )
        comes_from_lists = name in ("__getitem__", "__setitem__") and _is_on_the_host(args[1])
        self._watch.note(name, name in COPYING or goes_elsewhere or comes_from_lists)
        return func(*args, **kwargs)


def _is_on_the_host(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, list | np.ndarray) for part in parts)


def watching_gpu_kernels(patch: Any, watch: Watch) -> None:
    """What Triton's interpreter does to compute a kernel, no GPU does, while the patch lasts."""
    from triton.runtime.interpreter import GridExecutor

    compute = GridExecutor.__call__

    def unwatched(executor: GridExecutor, *args: Any, **kwargs: Any) -> None:
        with watch.paused():
            compute(executor, *args, **kwargs)

    patch.setattr(GridExecutor, "__call__", unwatched)
