"""Decoded images of an environment: from the cache, on a device, or decoded at each access."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from domainbed.accelerators import takes_pinned_memory
from domainbed.datasets.image_files import ImageEnvironment
from domainbed.datasets.image_transforms import PlainTransform
from domainbed.images.cache_file import CacheFile, ImageFacts
from domainbed.images.checked_arrays import DamagedCache

Repair = Callable[[CacheFile, str], CacheFile | None]
"""Makes a damaged cache file again. Takes the file and what is wrong with it; None if that is impossible."""


class FileImages:
    """Images that are decoded from their files at each access.

    This class and the two below are sequences of decoded images, uint8 of shape (H, W, 3), or (3, H, W) for a
    planar transform.

    Attributes:
        in_memory: whether images are available without decoding their files.
    """

    in_memory = False

    def __init__(self, environment: ImageEnvironment, transform: PlainTransform) -> None:
        self._environment = environment
        self._transform = transform

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(np.array(self._transform.cached_pixels(self._environment.image(index))))


class CachedImages:
    """Images in a cache file, which the system keeps in memory if there is room.

    If the file turns out to be damaged it is made again, once. After that, images are decoded from their
    files.

    Args:
        file: the cache file.
        repair: makes the cache file again.
        files: the same images, from their files.

    Attributes:
        facts: what is known of the images.
    """

    in_memory = True

    def __init__(self, file: CacheFile, repair: Repair, files: FileImages) -> None:
        self.facts = file.facts
        self._planar = file.planar
        self._file: CacheFile | None = file
        self._repair: Repair | None = repair
        self._files = files

    def __getitem__(self, index: int) -> Tensor:
        while self._file is not None:
            try:
                return torch.from_numpy(self._file.read(index))
            except (DamagedCache, OSError) as error:
                reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
                self._file = self._repaired(self._file, reason)
        return self._files[index]

    def _repaired(self, file: CacheFile, reason: str) -> CacheFile | None:
        repair, self._repair = self._repair, None
        return None if repair is None else repair(file, reason)

    @property
    def nbytes(self) -> int:
        """Number of bytes of all pixels."""
        return int(self.facts.end_positions()[-1])

    def to(self, device: torch.device) -> DecodedImages:
        """The images on `device`."""
        pixels = torch.empty(self.nbytes, dtype=torch.uint8, device=device)
        for index, end in enumerate(self.facts.end_positions().tolist()):
            image = self[index].flatten()
            pixels[end - len(image) : end] = image
        return DecodedImages(pixels, self.facts, self._planar)

    def gather(self, indices: np.ndarray, device: torch.device) -> Tensor:
        """The images at `indices` (B,) as one tensor on `device`; see `DecodedImages.gather`."""
        images = [self[index] for index in indices.tolist()]
        shape = np.array([each.shape for each in images]).max(axis=0).tolist()
        batch = torch.empty((len(images), *shape), dtype=torch.uint8, pin_memory=takes_pinned_memory(device))
        for row, image in zip(batch, images, strict=True):
            row[: image.shape[0], : image.shape[1]] = image
        return batch.to(device, non_blocking=True)


class DecodedImages:
    """Images in one contiguous tensor on a device.

    Args:
        pixels: bytes of all images, one image after the other.
        facts: what is known of the images.
        planar: whether an image is (3, H, W) rather than (H, W, 3).

    Attributes:
        facts: see above.
    """

    in_memory = True

    def __init__(self, pixels: Tensor, facts: ImageFacts, planar: bool) -> None:
        self.facts = facts
        self._pixels = pixels
        self._planar = planar
        self._ends = facts.end_positions()
        self._batch = None  # all images as one tensor, if they have the same size
        if (facts.sizes == facts.sizes[0]).all():
            self._batch = pixels.view(len(facts.sizes), *self._shape(0))

    def __getitem__(self, index: int) -> Tensor:
        shape = self._shape(index)
        end = int(self._ends[index])
        return self._pixels[end - shape.numel() : end].view(shape)

    def _shape(self, index: int) -> torch.Size:
        height, width = self.facts.sizes[index].tolist()
        return torch.Size((3, height, width) if self._planar else (height, width, 3))

    def gather(self, indices: np.ndarray, device: torch.device) -> Tensor:
        """The images at `indices` (B,) as one tensor on `device`.

        Images of different sizes are padded at the bottom and on the right; padding is uninitialized.
        """
        own_device = self._pixels.device
        if self._batch is not None:
            rows = torch.from_numpy(indices).to(own_device)
            return torch.index_select(self._batch, 0, rows).to(device, non_blocking=True)
        shape = (len(indices), *self.facts.sizes[indices].max(axis=0).tolist(), 3)
        batch = torch.empty(shape, dtype=torch.uint8, device=own_device)
        for row, index in zip(batch, indices.tolist(), strict=True):
            image = self[index]
            row[: image.shape[0], : image.shape[1]] = image
        return batch.to(device, non_blocking=True)


Images = FileImages | CachedImages | DecodedImages
