"""Where an engine's weights come from: a snapshot, the packed cache, or the checkpoint itself."""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from penstock import __version__
from penstock.engine.settings import WEIGHT_BYTES, OnProgress, Resolved
from penstock.kernels.ops import Ops
from penstock.models.directory import beside_weights
from penstock.models.loading import ModelConfig, packed_slots
from penstock.models.manifest import Origin
from penstock.models.packed_cache import PackedCache, cache_key, cache_root
from penstock.models.slots import Slot
from penstock.models.snapshot import Snapshot, sync, write_snapshot
from penstock.models.weights import Content, Weights
from penstock.vocabulary.errors import ModelError, SettingsError

log = logging.getLogger("penstock.cache")


@dataclass(frozen=True, kw_only=True)
class WeightsPlan:
    """What is to be loaded, and how."""

    model_dir: Path
    config: ModelConfig
    resolved: Resolved
    num_parameters: int
    ops: Ops
    snapshot: Snapshot | None
    """What the model directory is, unless it holds a checkpoint."""

    @property
    def device(self) -> torch.device:
        return torch.device(self.resolved.device)

    def load(self, on_progress: OnProgress | None) -> Weights:
        """The weights, in memory or mapped. `on_progress(bytes done, bytes in all)`."""
        if self.snapshot is not None:
            return self._restore(self.snapshot, on_progress)
        if self.resolved.packed_cache:
            return self._cached(on_progress)
        return self._packed(on_progress)

    def write(self, out: Path, source: str, on_progress: OnProgress | None) -> Snapshot:
        """Make a snapshot that serves without the model directory. It is complete once its name is
        there. Raises `SettingsError` if it cannot be written.
        """
        if self.snapshot is not None:
            raise ModelError(
                f"{self.model_dir} is a snapshot already.",
                remedy="Make snapshots of the original model.",
            )
        if out.exists():
            raise SettingsError(f"{out} exists.", remedy="Name a directory that does not.")
        draft: Path | None = None
        try:
            out.absolute().parent.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.absolute().parent))
            others = beside_weights(self.model_dir)
            write_snapshot(draft, self._slots(on_progress), self._origin(source), others)
            sync(draft)
            draft.chmod(0o755)
            draft.rename(out)
        except OSError as error:
            raise SettingsError(f"{out} cannot be written: {error}.") from error
        finally:
            if draft is not None:
                shutil.rmtree(draft, ignore_errors=True)
        return Snapshot(out)

    def _cached(self, on_progress: OnProgress | None) -> Weights:
        cache = PackedCache(cache_root(), self.resolved.packed_cache_bytes)
        origin = self._origin(str(self.model_dir))
        key = cache_key(self.model_dir, origin)
        found = cache.find(key, lambda snapshot: self._restore(snapshot, on_progress))
        if found is not None:
            return found
        expected = int(self.num_parameters * WEIGHT_BYTES[self.resolved.weights])
        try:
            with cache.draft(key, expected) as directory:
                write_snapshot(directory, self._slots(on_progress), origin)
                return Snapshot(directory).weights(self.config.spec, self.ops, self.device)
        except OSError as error:
            log.warning("packed weights are not cached: %s; --no-packed-cache does not try", error)
        return self._packed(on_progress)

    def _restore(self, snapshot: Snapshot, on_progress: OnProgress | None) -> Weights:
        snapshot.check_fits(self.ops.packing, self.resolved.dtype)
        if self.resolved.verify:
            snapshot.verify(on_progress)
        return snapshot.weights(self.config.spec, self.ops, self.device)

    def _packed(self, on_progress: OnProgress | None) -> Weights:
        weights = Weights()
        for slot, content in self._slots(on_progress):
            weights.put(slot, content)
        return weights

    def _slots(self, on_progress: OnProgress | None) -> Iterator[tuple[Slot, Content]]:
        return packed_slots(
            self.model_dir,
            self.config,
            weights=self.resolved.weights,
            dtype=getattr(torch, self.resolved.dtype),
            device=self.device,
            ops=self.ops,
            on_progress=on_progress,
        )

    def _origin(self, source: str) -> Origin:
        return Origin(
            source=source,
            architecture=self.config.architecture,
            num_parameters=self.num_parameters,
            penstock=__version__,
            instruction_set=self.ops.packing.instruction_set,
            packing_version=self.ops.packing.version,
            weights=self.resolved.weights,
            dtype=self.resolved.dtype,
        )
