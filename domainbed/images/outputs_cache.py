"""A cache of a network's outputs for the images of an environment, in one file that runs share.

The name of the file has a hash of all that determines the outputs, so a file is never out of date. One
process writes it while others wait. A damaged file is made again, once; then outputs are computed.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from domainbed.files import file_lock
from domainbed.images.building import check_space
from domainbed.images.checked_arrays import DamagedCache
from domainbed.images.outputs_file import OutputsFile, write_outputs

_FORMAT = 1
_BATCH = 64
"""Number of images whose outputs are computed at once."""

_log = logging.getLogger(__name__)

Compute = Callable[[np.ndarray], np.ndarray]
"""Outputs (B, *shape) float32 of the images at the indices (B,)."""


class CachedOutputs:
    """Outputs for the N images of an environment, which are computed and cached now if no other run has.

    Args:
        folder: the cache folder, created if necessary.
        name: name of the environment, for file names and progress bars.
        key: identifies everything that determines the outputs.
        count: N.
        shape: shape of one output.
        compute: computes outputs.

    Raises: OSError if the cache cannot be read or written, or the disk has too little space.
    """

    def __init__(
        self, folder: Path, name: str, key: str, count: int, shape: tuple[int, ...], compute: Compute
    ) -> None:
        text = re.sub(r"[^A-Za-z0-9]+", "_", name)
        digest = hashlib.blake2b(f"{_FORMAT} {key} {count} {shape}".encode(), digest_size=16).hexdigest()
        self._path = folder / f"{text}-{digest}.outputs"
        self._lock = folder / f".{self._path.stem}.lock"
        self._name, self._count, self._shape, self._compute = name, count, shape, compute
        self._may_repair = True
        self._file: OutputsFile | None = self._existing()
        if self._file is None:
            folder.mkdir(parents=True, exist_ok=True)
            with file_lock(self._lock):
                self._file = self._existing(say=True) or self._new()

    @property
    def nbytes(self) -> int:
        """Number of bytes of all outputs."""
        return 4 * self._count * int(np.prod(self._shape))

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The outputs at `indices` (B,), float32 of shape (B, *shape)."""
        while self._file is not None:
            try:
                return self._file.read(indices)
            except (DamagedCache, OSError) as error:
                self._file = self._repaired(self._file, error)
        return self._compute(indices)

    def _existing(self, say: bool = False) -> OutputsFile | None:
        try:
            return OutputsFile(self._path)
        except FileNotFoundError:
            return None
        except DamagedCache as error:
            if say:
                _log.warning("warning: cache file %s is damaged (%s); it is made again", self._path, error)
            return None

    def _new(self) -> OutputsFile:
        """Make the file. The lock must be held."""
        for leftover in self._path.parent.glob(f".{self._path.name}.*"):  # of a process that was killed
            leftover.unlink()
        check_space(self._path.parent, self.nbytes)
        write_outputs(self._path, self._count, self._shape, self._batches())
        return OutputsFile(self._path)

    def _batches(self) -> Iterator[np.ndarray]:
        bar = tqdm(
            desc=f"{self._name}: frozen stages", total=self._count, unit="image", leave=False, disable=None
        )
        with bar:
            for start in range(0, self._count, _BATCH):
                indices = np.arange(start, min(start + _BATCH, self._count))
                yield self._compute(indices)
                bar.update(len(indices))

    def _repaired(self, file: OutputsFile, error: Exception) -> OutputsFile | None:
        """The file, made again; None if that is impossible or was done before."""
        reason = getattr(error, "strerror", None) or str(error)
        if not self._may_repair:
            _log.warning("warning: %s is damaged again (%s); outputs are computed", file.path, reason)
            return None
        self._may_repair = False
        _log.warning("warning: cache file %s is damaged (%s); it is made again", file.path, reason)
        try:
            with file_lock(self._lock):
                if file.is_at_its_path():
                    file.path.unlink()
                return self._existing() or self._new()
        except OSError as failure:
            _log.warning("warning: that failed (%s); outputs are computed", failure.strerror or failure)
            return None
