"""Decoded images of an environment, and the format of the file that caches them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
from torch import Tensor

from domainbed.datasets.image_files import ImageEnvironment
from domainbed.datasets.image_transforms import PlainTransform
from domainbed.errors import RunError

_PAGE = 4096


class Images(Protocol):
    """Sequence of decoded images, uint8 of shape (H, W, 3), or (3, H, W) for a planar transform.

    Attributes:
        in_memory: whether images are available without reading their files.
    """

    in_memory: bool

    def __getitem__(self, index: int) -> Tensor: ...


class FileImages:
    """Images that are decoded from their files at each access."""

    in_memory = False

    def __init__(self, environment: ImageEnvironment, transform: PlainTransform) -> None:
        self._environment = environment
        self._transform = transform

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(np.array(self._transform.cached_pixels(self._environment.image(index))))


class DecodedImages:
    """Images in one contiguous tensor, which is a memory-mapped file or lies on a device.

    Args:
        pixels: bytes of all images, one image after the other.
        sizes: height and width of each image, (N, 2).
        digests: `domainbed.datasets.image_checks.image_digest` of each image file's image, (N,) uint64.
        findings: `domainbed.datasets.image_decoding.Finding` of each image file, (N,) uint8.
        planar: whether an image is (3, H, W) rather than (H, W, 3).

    Attributes:
        sizes, digests, findings: see above.
    """

    in_memory = True

    def __init__(
        self, pixels: Tensor, sizes: np.ndarray, digests: np.ndarray, findings: np.ndarray, planar: bool
    ) -> None:
        self.sizes = sizes
        self.digests = digests
        self.findings = findings
        self._pixels = pixels
        self._planar = planar
        self._ends = np.cumsum(3 * sizes.prod(axis=1))
        self._batch = None  # all images as one tensor, if they have the same size
        if (sizes == sizes[0]).all():
            self._batch = pixels.view(len(sizes), *self._shape(0))

    def __getitem__(self, index: int) -> Tensor:
        shape = self._shape(index)
        end = int(self._ends[index])
        return self._pixels[end - shape.numel() : end].view(shape)

    def _shape(self, index: int) -> torch.Size:
        height, width = self.sizes[index].tolist()
        return torch.Size((3, height, width) if self._planar else (height, width, 3))

    @property
    def nbytes(self) -> int:
        return self._pixels.nbytes

    def to(self, device: torch.device) -> DecodedImages:
        """A copy on `device`."""
        return DecodedImages(self._pixels.to(device), self.sizes, self.digests, self.findings, self._planar)

    def gather(self, indices: np.ndarray, device: torch.device) -> Tensor:
        """The images at `indices` (B,) as one tensor on `device`.

        Images of different sizes are padded at the bottom and on the right; padding is uninitialized.
        """
        own_device = self._pixels.device
        pin_memory = own_device.type == "cpu" and device.type == "cuda"
        if self._batch is not None:
            shape = (len(indices), *self._batch.shape[1:])
        else:
            shape = (len(indices), *self.sizes[indices].max(axis=0).tolist(), 3)
        batch = torch.empty(shape, dtype=torch.uint8, device=own_device, pin_memory=pin_memory)
        if self._batch is not None:
            torch.index_select(self._batch, 0, torch.from_numpy(indices).to(own_device), out=batch)
        else:
            for row, index in enumerate(indices.tolist()):
                image = self[index]
                batch[row, : image.shape[0], : image.shape[1]] = image
        return batch.to(device, non_blocking=True)


def write_header(file: BinaryIO, sizes: np.ndarray, digests: np.ndarray, findings: np.ndarray) -> int:
    """Write the header of a cache file, and return the position at which its pixels start.

    Args:
        file: the cache file, at its beginning.
        sizes, digests, findings: see `DecodedImages`.
    """
    np.save(file, sizes)
    np.save(file, digests)
    np.save(file, findings)
    file.flush()
    return _page_aligned(file.tell())


def read_images(path: Path, planar: bool) -> DecodedImages:
    """Memory-map the images of a cache file.

    Raises: RunError if the file is damaged.
    """
    try:
        with path.open("rb") as file:
            sizes, digests, findings = np.load(file), np.load(file), np.load(file)
            start = _page_aligned(file.tell())
        pixels = np.memmap(path, mode="r", offset=start)
        with warnings.catch_warnings():
            # Nothing writes to the images.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return DecodedImages(torch.from_numpy(pixels), sizes, digests, findings, planar)
    except (ValueError, RuntimeError, EOFError) as error:
        raise RunError(
            f"image cache {path} is damaged ({str(error).splitlines()[0]}); delete it, and run the same "
            "command again"
        ) from error


def _page_aligned(position: int) -> int:
    return -(-position // _PAGE) * _PAGE
