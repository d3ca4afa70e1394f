"""Image environments as a run uses them: decoded once, and augmented a minibatch at a time."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeGuard, cast

import numpy as np
import torch
from torch import Tensor

from domainbed.accelerators import free_bytes
from domainbed.datasets.base import MultipleDomainDataset
from domainbed.datasets.file_copies import environment_title, find_copies
from domainbed.datasets.hashes import hash_array
from domainbed.datasets.image_checks import check_images, warn_about_copies
from domainbed.datasets.image_decoding import Decoded, UnreadableImage
from domainbed.datasets.image_files import ImageEnvironment
from domainbed.datasets.image_transforms import AugmentingTransform, PlainTransform
from domainbed.images.augmentation import augment_batch, augment_one_by_one, draw, normalise
from domainbed.images.cache import cached_images
from domainbed.images.decoded import CachedImages, DecodedImages, FileImages, Images
from domainbed.images.known_contents import remembered_hashes
from domainbed.seeds import generator

if TYPE_CHECKING:
    from PIL.Image import Image

    from domainbed.datasets.base import Environment
else:
    Environment = object  # torch's loaders need no base class

_DEVICE_SHARE = 0.25
"""Largest share of a device's free memory that images may take."""

_NO_DIGESTS = np.zeros(0, dtype=np.uint64)
_NO_FINDINGS = np.zeros(0, dtype=np.uint8)
_NO_CONTENTS = hash_array(())

_log = logging.getLogger(__name__)


class ImageStore:
    """Where a run keeps its images: in the cache, on its device, or only in their files.

    Args:
        folder: the cache folder; None disables the cache.
        device: device of the run.
    """

    def __init__(self, folder: Path | None, device: torch.device) -> None:
        self.device = device
        self._folder = folder
        self._free_bytes = int(_DEVICE_SHARE * free_bytes(device))

    def open(self, name: str, environment: ImageEnvironment, transform: PlainTransform) -> Images:
        """The images of an environment: from the cache, or from their files if the cache cannot be used.

        Logs a warning, and does not try again, if the cache cannot be written.
        """
        paths = environment.paths()
        if self._folder is None or not paths:
            return FileImages(environment, transform)
        try:
            return cached_images(self._folder, name, environment, paths, transform)
        except OSError as error:
            place = error.filename or self._folder
            _log.warning(
                "images are decoded at each access, because the cache cannot be used (%s: %s)",
                place,
                error.strerror,
            )
            self._folder = None
            return FileImages(environment, transform)

    def to_device(self, images: Images) -> Images:
        """`images` on the device if it has room for them, else as they are."""
        if not isinstance(images, CachedImages) or images.nbytes > self._free_bytes:
            return images
        self._free_bytes -= images.nbytes
        return images.to(self.device)


class PreparedImages(Environment):
    """An environment of image files that loads whole minibatches.

    If the images are in memory and the run uses a GPU, augmentation runs there and samples are on the GPU.

    Args:
        name: name of the environment, for file names and progress bars.
        files: the environment.
        store: where its images are kept.

    Attributes:
        name: see above.
        targets: labels (N,) int64.
        in_memory: whether no file is read.
    """

    def __init__(self, name: str, files: ImageEnvironment, store: ImageStore) -> None:
        self.files = files
        self.targets = torch.as_tensor(files.targets, dtype=torch.int64)
        self.name = name
        self._store = store
        self._transform = cast(PlainTransform, files.transform)
        self._images = store.open(name, files, self._transform)

    @property
    def in_memory(self) -> bool:
        return self._images.in_memory

    @property
    def digests(self) -> np.ndarray:
        """The `image_digest` (N,) of each image; empty if images are decoded at each access."""
        return _NO_DIGESTS if isinstance(self._images, FileImages) else self._images.facts.digests

    @property
    def findings(self) -> np.ndarray:
        """What was found in each image (N,); empty if images are decoded at each access."""
        return _NO_FINDINGS if isinstance(self._images, FileImages) else self._images.facts.findings

    @property
    def contents(self) -> np.ndarray:
        """The content hash (N, 32) of each file; empty if images are decoded at each access."""
        return _NO_CONTENTS if isinstance(self._images, FileImages) else self._images.facts.contents

    def inputs_key(self) -> str | None:
        """Identifies the inputs of all samples; None if they are augmented, or images are not cached."""
        if isinstance(self._transform, AugmentingTransform) or not len(self.contents):
            return None
        contents = hashlib.sha256(self.contents.tobytes()).hexdigest()
        return f"{contents} {self._transform.cache_key()} {self._transform.side} {self.files.cache_key()}"

    def move_to_device(self) -> None:
        """Move the images to the store's device if it has room for them."""
        self._images = self._store.to_device(self._images)

    def __len__(self) -> int:
        return len(self.targets)

    def image(self, index: int) -> Image:
        """Image `index`, read from its file."""
        return self.files.image(index)

    def decoded(self, index: int) -> Decoded:
        """Image `index`, read from its file, and what was found when it was decoded."""
        return self.files.decoded(index)

    def paths(self) -> Sequence[str] | None:
        """Path of each image's file, or None if the paths are unknown."""
        return self.files.paths()

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self.augmented_batch(np.array([index]), (int(torch.randint(2**62, ())),))
        return x[0], y[0]

    def augmented_batch(self, indices: np.ndarray, counters: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Inputs (B, 3, S, S) float32 and labels (B,) of the samples at `indices`.

        Args:
            indices: (B,) int64.
            counters: integers that seed the augmentation (see `domainbed.seeds.generator`).
        """
        labels = self.targets[torch.from_numpy(indices)]
        if self._store.device.type == "cpu" or isinstance(self._images, FileImages):
            return self._load_one_by_one(indices, counters), labels
        return self._load_at_once(self._images, indices, counters), labels

    def _load_one_by_one(self, indices: np.ndarray, counters: tuple[int, ...]) -> Tensor:
        side, transform = self._transform.side, self._transform
        if isinstance(transform, AugmentingTransform):
            images = [self._images[index] for index in indices.tolist()]
            draws = draw(generator(*counters), len(images))
            return augment_one_by_one(images, draws, side, transform.crop)
        inputs, x = torch.empty((len(indices), 3, side, side)), torch.empty((3, side, side))
        for index, out in zip(indices.tolist(), inputs, strict=True):
            normalise(x.copy_(self._images[index]), out=out)
        return inputs

    def _load_at_once(
        self, decoded: CachedImages | DecodedImages, indices: np.ndarray, counters: tuple[int, ...]
    ) -> Tensor:
        transform, images = self._transform, decoded.gather(indices, self._store.device)
        if isinstance(transform, AugmentingTransform):
            draws = draw(generator(*counters), len(indices))
            return augment_batch(images, decoded.facts.sizes[indices], draws, transform.side, transform.crop)
        x = images.float()
        return normalise(x, out=x)

    def plain(self) -> Self:
        """A view of the same samples without augmentation."""
        view = copy.copy(self)
        view.files = self.files.plain()
        view._transform = cast(PlainTransform, view.files.transform)
        if view._transform is not self._transform:
            view._images = self._store.open(self.name, view.files, view._transform)
            view.move_to_device()
        return view


def prepare(
    dataset: MultipleDomainDataset, folder: Path | None, device: torch.device, check: bool = False
) -> None:
    """Replace the environments of image files in `dataset` with `PreparedImages`, and warn about copies.

    Sets `dataset.image_digests`, `dataset.image_findings` and `dataset.image_contents`, with empty arrays for
    environments whose images were not read, and `dataset.copies` (`file_copies.find_copies`).

    Unaugmented inputs stay the same, to the bit. Augmented ones use other random numbers. Environments with a
    transform or a `__getitem__` of their own are not replaced.

    Args:
        dataset: a dataset; its list of environments is replaced.
        folder: the cache folder; None disables the cache.
        device: device of the run.
        check: read the images that were not read for the cache too (`image_checks.check_images`).

    Raises: UnreadableImage; RunError if all images are checked, and some of them cannot be read.
    """
    store = ImageStore(folder, device)
    try:
        environments = [
            PreparedImages(environment_title(dataset, number), each, store)
            if _can_be_prepared(each)
            else each
            for number, each in enumerate(dataset.datasets)
        ]
    except UnreadableImage:
        if check:
            check_images(dataset)  # counts all of them
        raise
    prepared = [each for each in environments if isinstance(each, PreparedImages)]
    if not all(each.in_memory for each in prepared) or len(prepared) < len(environments):
        # Loader processes cannot use the device, and all minibatches of an update must be on one device.
        store.device = torch.device("cpu")
    elif device.type != "cpu":
        for each in prepared:
            each.move_to_device()
    dataset.datasets = environments
    dataset.image_digests = _known(dataset.image_digests, environments, "digests", _NO_DIGESTS)
    dataset.image_findings = _known(dataset.image_findings, environments, "findings", _NO_FINDINGS)
    dataset.image_contents = _known(dataset.image_contents, environments, "contents", _NO_CONTENTS)
    if check:
        check_images(dataset)
    find_copies(dataset, remembered_hashes(folder))
    warn_about_copies(dataset, dataset.image_digests)


def _known(
    before: Sequence[np.ndarray] | None, environments: Sequence[object], attribute: str, nothing: np.ndarray
) -> Sequence[np.ndarray]:
    """An array for each environment: the attribute of `PreparedImages` if it is known, else as `before`."""
    now = [getattr(each, attribute) if isinstance(each, PreparedImages) else nothing for each in environments]
    return [new if len(new) else old for new, old in zip(now, before or [nothing] * len(now), strict=True)]


def _can_be_prepared(environment: object) -> TypeGuard[ImageEnvironment]:
    return (
        isinstance(environment, ImageEnvironment)
        and type(environment).__getitem__ is ImageEnvironment.__getitem__
        and (
            type(environment.transform) is PlainTransform
            or (isinstance(environment.transform, AugmentingTransform) and environment.transform.by_tensors)
        )
    )
