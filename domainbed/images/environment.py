"""Environments of image files as a run uses them: decoded once, and augmented a minibatch at a time."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeGuard, cast

import numpy as np
import torch
from torch import Tensor

from domainbed.datasets.base import MultipleDomainDataset
from domainbed.datasets.copies import warn_of_copies
from domainbed.datasets.image_files import ImageEnvironment
from domainbed.datasets.image_transforms import AugmentingTransform, PlainTransform
from domainbed.images.augmentation import augment_each, augment_together, draw, normalise
from domainbed.images.cache import held
from domainbed.images.decoded import FileImages, HeldImages, Images
from domainbed.seeds import generator

if TYPE_CHECKING:
    from PIL.Image import Image

    from domainbed.datasets.base import Environment
else:
    Environment = object  # see image_files

_DEVICE_SHARE = 0.25
"""Share of a device's free memory that images may take."""

_NO_DIGESTS = np.zeros(0, dtype=np.uint64)

_log = logging.getLogger(__name__)


class Place:
    """Where a run has its images.

    Args:
        folder: of the cache, None for no cache.
        device: of the run.
    """

    def __init__(self, folder: Path | None, device: torch.device) -> None:
        self.device = device
        self._folder = folder
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
        self._room = int(_DEVICE_SHARE * free)

    def images(self, name: str, environment: ImageEnvironment, transform: PlainTransform) -> Images:
        """From the cache, unless there is none and none can be made."""
        paths = environment.paths()
        if self._folder is None or not paths:
            return FileImages(environment, transform)
        try:
            return held(self._folder, name, environment, paths, transform)
        except OSError as error:
            where = error.filename or self._folder
            _log.warning("images are decoded anew each time: no cache (%s: %s)", where, error.strerror)
            self._folder = None
            return FileImages(environment, transform)

    def settled(self, images: Images) -> Images:
        """On the device, as long as there is room."""
        if not isinstance(images, HeldImages) or images.nbytes > self._room:
            return images
        self._room -= images.nbytes
        return images.to(self.device)


class PreparedImages(Environment):
    """The samples of an environment of image files, a minibatch at a time.

    Where the images are held in memory, the device does the work; samples are on the device then.

    Args:
        name: of the environment, for people.
        files: the environment.
        place: where its images are.

    Attributes:
        targets: labels (N,) int64.
        in_memory: whether no file is read.
    """

    def __init__(self, name: str, files: ImageEnvironment, place: Place) -> None:
        self.files = files
        self.targets = torch.as_tensor(files.targets, dtype=torch.int64)
        self._name = name
        self._place = place
        self._transform = cast(PlainTransform, files.transform)
        self._images = place.images(name, files, self._transform)

    @property
    def in_memory(self) -> bool:
        return self._images.in_memory

    @property
    def digests(self) -> np.ndarray:
        """Of its images (see `domainbed.datasets.copies`); empty where they are read when they are drawn."""
        return self._images.digests if isinstance(self._images, HeldImages) else _NO_DIGESTS

    def settle(self) -> None:
        """Move the images to where they stay."""
        self._images = self._place.settled(self._images)

    def __len__(self) -> int:
        return len(self.targets)

    def image(self, index: int) -> Image:
        """The image at a position, read from its file."""
        return self.files.image(index)

    def paths(self) -> Sequence[str] | None:
        """The files of the images, one each; None if they are not known."""
        return self.files.paths()

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self.drawn_batch(np.array([index]), (int(torch.randint(2**62, ())),))
        return x[0], y[0]

    def drawn_batch(self, indices: np.ndarray, draws: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Inputs (B, 3, S, S) float32 and labels (B,) of the samples at `indices`.

        Args:
            indices: (B,) int64.
            draws: counters that the random numbers of the augmentation belong to.
        """
        labels = self.targets[torch.from_numpy(indices)]
        if self._place.device.type == "cpu" or not isinstance(self._images, HeldImages):
            return self._each(indices, draws), labels
        return self._together(self._images, indices, draws), labels

    def _each(self, indices: np.ndarray, draws: tuple[int, ...]) -> Tensor:
        side, transform = self._transform.side, self._transform
        images = [self._images[index] for index in indices.tolist()]
        if isinstance(transform, AugmentingTransform):
            return augment_each(images, draw(generator(*draws), len(images)), side, transform.crop)
        inputs, x = torch.empty((len(images), 3, side, side)), torch.empty((3, side, side))
        for image, out in zip(images, inputs, strict=True):
            normalise(x.copy_(image), out=out)
        return inputs

    def _together(self, held: HeldImages, indices: np.ndarray, draws: tuple[int, ...]) -> Tensor:
        transform, images = self._transform, held.together(indices, self._place.device)
        if isinstance(transform, AugmentingTransform):
            drawn = draw(generator(*draws), len(indices))
            return augment_together(images, held.sizes[indices], drawn, transform.side, transform.crop)
        x = images.float()
        return normalise(x, out=x)

    def plain(self) -> Self:
        """The same samples without augmentation."""
        view = copy.copy(self)
        view.files = self.files.plain()
        view._transform = cast(PlainTransform, view.files.transform)
        if view._transform is not self._transform:
            view._images = self._place.images(self._name, view.files, view._transform)
            view.settle()
        return view


def prepare(dataset: MultipleDomainDataset, folder: Path | None, device: torch.device) -> None:
    """Put `PreparedImages` in the place of the environments of `dataset` that can be read so.

    They give the same samples without augmentation, to the bit, and augmented ones by other random numbers.
    What has a transform or a way of reading of its own stays as it is. Of images that are in several
    environments there is a warning, as far as images were read, for the cache or by `check_images`.

    Args:
        dataset: its list of environments is replaced.
        folder: of the cache, None for no cache.
        device: of the run.
    """
    place = Place(folder, device)
    environments = [
        PreparedImages(f"{type(dataset).__name__} {name}", each, place) if _can_be_prepared(each) else each
        for name, each in zip(dataset.ENVIRONMENTS, dataset.datasets, strict=True)
    ]
    prepared = [each for each in environments if isinstance(each, PreparedImages)]
    if not all(each.in_memory for each in prepared) or len(prepared) < len(environments):
        # Loader processes can't use the device, and an update's minibatches come from one place.
        place.device = torch.device("cpu")
    elif device.type == "cuda":
        for each in prepared:
            each.settle()
    dataset.datasets = environments
    warn_of_copies(
        dataset, dataset.digests or [getattr(each, "digests", _NO_DIGESTS) for each in environments]
    )


def _can_be_prepared(environment: object) -> TypeGuard[ImageEnvironment]:
    return (
        isinstance(environment, ImageEnvironment)
        and type(environment).__getitem__ is ImageEnvironment.__getitem__
        and (
            type(environment.transform) is PlainTransform
            or (isinstance(environment.transform, AugmentingTransform) and environment.transform.by_tensors)
        )
    )
