"""Frozen stages of a run's featurizer: computed once for each image, if images are always the same.

Then minibatches hold the outputs of these stages instead of images, which featurizers accept
(`networks.stages`). Numbers are those of the images, to rounding. Outputs are cached like decoded images.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from domainbed.accelerators import free_bytes
from domainbed.algorithms.base import Algorithm
from domainbed.datasets.base import MultipleDomainDataset, labels_of
from domainbed.datasets.splitting import SplitDataset
from domainbed.images.outputs_cache import CachedOutputs
from domainbed.images.prepared import PreparedImages
from domainbed.networks.base import NO_WEIGHTS
from domainbed.networks.stages import StagedFeaturizer, frozen_names, shared_frozen_stages
from domainbed.training.minibatches import Minibatches, is_in_memory, load_minibatch

_DEVICE_SHARE = 0.25
"""Largest share of a device's free memory that the outputs for one environment may take."""

_CHUNK = 256

_log = logging.getLogger(__name__)


class FrozenOutputs(Dataset[tuple[Tensor, Tensor]]):
    """An environment whose inputs are the outputs of frozen stages.

    Args:
        outputs: the outputs for all N images.
        targets: labels (N,) int64.
        device: device of the outputs, where they are kept if it has room for them.
    """

    in_memory = True

    def __init__(self, outputs: CachedOutputs, targets: Tensor, device: torch.device) -> None:
        self.targets = targets
        self._outputs = outputs
        self._device = device
        self._on_device: Tensor | None = None
        if device.type != "cpu" and outputs.nbytes <= _DEVICE_SHARE * free_bytes(device):
            chunks = np.array_split(np.arange(len(targets)), -(-len(targets) // _CHUNK))
            self._on_device = torch.cat([torch.from_numpy(outputs.read(each)).to(device) for each in chunks])

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self.batch(np.array([index]))
        return x[0], y[0]

    def batch(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        """Outputs (B, *shape) float32 and labels (B,) of the samples at `indices` (B,)."""
        keys = torch.from_numpy(np.ascontiguousarray(indices, dtype=np.int64))
        if self._on_device is not None:
            return self._on_device[keys.to(self._device)], self.targets[keys]
        return torch.from_numpy(self._outputs.read(indices)).to(self._device), self.targets[keys]


class FrozenStages:
    """The frozen stages of a run, and their outputs for its environments.

    Args:
        algorithm: the algorithm, on its device, with its initial weights.
        dataset: its environments have been prepared.
        folder: the cache folder; None disables the cache.
        device: device of the algorithm.

    Attributes:
        note: a sentence on how the stages are computed in training; empty if none is frozen.
    """

    def __init__(
        self, algorithm: Algorithm, dataset: MultipleDomainDataset, folder: Path | None, device: torch.device
    ) -> None:
        self._device = device
        self._folder = folder
        self._dataset = dataset
        self._keys: dict[int, tuple[object, str | None]] = {}  # with the environment, so that ids stay unique
        self._made: dict[str, FrozenOutputs] = {}
        self._stages = shared_frozen_stages(algorithm)
        reason = _why_not_cached(algorithm, self._stages, folder)
        self.note = f"computed in each update, because {reason}" if frozen_names(algorithm) else ""
        if reason:
            self._stages = None

    def minibatches(
        self, labeled: Minibatches, unlabeled: Minibatches | None
    ) -> tuple[Minibatches, Minibatches | None]:
        """The same minibatches, of outputs if all their images are always the same, else as they are."""
        if self._stages is None:
            return labeled, unlabeled
        parts = [*labeled.parts, *(unlabeled.parts if unlabeled is not None else ())]
        replaced = [self.part(part) for part in parts]
        if any(new is part for new, part in zip(replaced, parts, strict=True)):
            self.note = "computed in each update, because images are augmented or cannot be cached"
            return labeled, unlabeled
        self.note = "computed once for each image"
        count = len(labeled.parts)
        new = Minibatches(replaced[:count], labeled.samplers, labeled.n_steps)
        if unlabeled is None:
            return new, None
        return new, Minibatches(replaced[count:], unlabeled.samplers, unlabeled.n_steps)

    def part(self, part: SplitDataset) -> SplitDataset:
        """The same samples of outputs if the images are always the same, else `part` itself."""
        if self._stages is None:
            return part
        below = part.underlying_dataset
        if isinstance(below, SplitDataset):
            replaced: Any = self.part(below)
        else:
            replaced = self._environment(below) or below
        return part if replaced is below else SplitDataset(replaced, part.keys)

    def _environment(self, environment: Any) -> FrozenOutputs | None:  # noqa: ANN401 - any map-style dataset
        """The outputs for all images of an environment; None if they cannot be cached."""
        if id(environment) not in self._keys:
            self._keys[id(environment)] = environment, _inputs_key(environment)
        _, key = self._keys[id(environment)]
        if key is None or self._stages is None or self._folder is None:
            return None
        if key not in self._made:
            try:
                self._made[key] = self._cached_outputs(environment, key, self._stages, self._folder)
            except OSError as error:
                _log.warning(
                    "frozen stages are computed in each update, because the cache cannot be used (%s: %s)",
                    error.filename or self._folder,
                    error.strerror,
                )
                self._folder = None
                return None
        return self._made[key]

    def _cached_outputs(
        self,
        environment: Any,  # noqa: ANN401 - any map-style dataset
        key: str,
        stages: StagedFeaturizer,
        folder: Path,
    ) -> FrozenOutputs:
        assert stages.frozen_shape is not None
        whole, device = SplitDataset(environment, range(len(environment))), self._device

        def compute(indices: np.ndarray) -> np.ndarray:
            x, _ = load_minibatch(whole, indices, (0,))
            outputs: np.ndarray = stages.frozen_outputs(x.to(device)).float().cpu().numpy()
            return outputs

        outputs = CachedOutputs(
            folder=folder,
            name=self._name(environment),
            key=f"{stages.frozen_hash()} {key}",
            count=len(environment),
            shape=stages.frozen_shape,
            compute=compute,
        )
        return FrozenOutputs(outputs, torch.from_numpy(labels_of(environment)), device)

    def _name(self, environment: object) -> str:
        if isinstance(environment, PreparedImages):
            return environment.name
        pairs = zip(self._dataset.ENVIRONMENTS, self._dataset.datasets, strict=True)
        names = [name for name, each in pairs if each is environment]
        return " ".join([type(self._dataset).__name__, *names])


def _why_not_cached(algorithm: Algorithm, stages: StagedFeaturizer | None, folder: Path | None) -> str:
    """Why the outputs of frozen stages cannot take the place of images; empty if they can."""
    if algorithm.CHANGES_INPUTS:
        return f"{type(algorithm).__name__} changes its inputs"
    if stages is None:
        return "its featurizers have different weights"
    if stages.provenance is NO_WEIGHTS:
        return "the weights are random, so that no other run has them"
    if stages.frozen_shape is None:
        return "the outputs have the shape of the inputs"
    return "--cache_dir is none" if folder is None else ""


def _inputs_key(environment: Any) -> str | None:  # noqa: ANN401 - any map-style dataset
    """Identifies the inputs of an environment; None if they are augmented or would have to be read first."""
    if isinstance(environment, PreparedImages):
        return environment.inputs_key()
    whole = SplitDataset(environment, range(len(environment)))
    if hasattr(environment, "augmented_batch") or not is_in_memory(whole):
        return None
    digest = hashlib.sha256()
    for start in range(0, len(whole), _CHUNK):
        x, _ = load_minibatch(whole, np.arange(start, min(start + _CHUNK, len(whole))), (0,))
        digest.update(f"{tuple(x.shape)} {x.dtype}".encode() + x.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
