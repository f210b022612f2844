"""Computations recorded: the kernels they call, with what addresses, to be called again at a word.

For few tokens Python takes a tenth of a step and more: hundreds of calls, each after its checks, by
a processor whose caches have just been swept by the weights.
"""

import mmap
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

import penstock.kernels.cpu._native as _native
from penstock.kernels.cpu.memory import Arena, ArenaFull, results_in
from penstock.kernels.recording import Compute, NotRecorded

_ARENA_BYTES = 256 * 2**20
"""Of addresses; a page is memory from when it is first touched."""


class Recorder:
    """Records computations that are replayed one at a time, in the same memory."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _ARENA_BYTES)

    def __call__(self, compute: Compute) -> Compute:
        """A function that computes the same, from what then lies in the tensors that `compute`
        reads. Its result lasts until anything that this object recorded is computed again.

        Raises `NotRecorded` if `compute` does more than call kernels and look at parts of tensors.
        """
        recording = _native.Recording()
        try:
            with results_in(Arena(self._memory)), _KernelsOnly():  # type: ignore[no-untyped-call]
                recording.begin()
                result = compute()
        except ArenaFull:
            raise NotRecorded("its results take too much memory") from None
        finally:
            recording.end()

        def replay() -> Tensor:
            recording.replay()
            return result

        return replay


class _KernelsOnly(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses whatever torch computes itself, since no recording would know of it."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: to skip it would be to import it, seconds and 250 MB, in the middle of a step."""
        return False

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if not func.is_view:
            raise NotRecorded(f"torch computes {func}")
        return func(*args, **(kwargs or {}))
