"""Decoded images, from files when they are asked for, or all of them in memory."""

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
    """The images of an environment as a transform keeps them, uint8: (H, W, 3), or (3, H, W) if it is planar.

    Attributes:
        in_memory: whether an image costs no reading of its file.
    """

    in_memory: bool

    def __getitem__(self, index: int) -> Tensor: ...


class FileImages:
    """Each image is decoded when it is asked for."""

    in_memory = False

    def __init__(self, environment: ImageEnvironment, transform: PlainTransform) -> None:
        self._environment = environment
        self._transform = transform

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(np.array(self._transform.kept_bytes(self._environment.image(index))))


class HeldImages:
    """All images one after the other, in a file that is mapped into memory, or on a device.

    Args:
        pixels: bytes of all images.
        sizes: (N, 2), height and width of each.
        digests: (N,) uint64, of the files' images (see `domainbed.datasets.copies`).
        planar: whether an image is (3, H, W).

    Attributes:
        sizes, digests: as given.
    """

    in_memory = True

    def __init__(self, pixels: Tensor, sizes: np.ndarray, digests: np.ndarray, planar: bool) -> None:
        self.sizes = sizes
        self.digests = digests
        self._pixels = pixels
        self._planar = planar
        self._ends = np.cumsum(3 * sizes.prod(axis=1))
        # One block, where all images are of one size.
        self._block = None
        if (sizes == sizes[0]).all():
            self._block = pixels.view(len(sizes), *self._shape(0))

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

    def to(self, device: torch.device) -> HeldImages:
        """The same on a device."""
        return HeldImages(self._pixels.to(device), self.sizes, self.digests, self._planar)

    def together(self, indices: np.ndarray, device: torch.device) -> Tensor:
        """Images as one tensor on a device; where they differ in size, each in the upper left corner."""
        here = self._pixels.device
        staged = here.type == "cpu" and device.type == "cuda"
        if self._block is not None:
            shape = (len(indices), *self._block.shape[1:])
        else:
            shape = (len(indices), *self.sizes[indices].max(axis=0).tolist(), 3)
        found = torch.empty(shape, dtype=torch.uint8, device=here, pin_memory=staged)
        if self._block is not None:
            torch.index_select(self._block, 0, torch.from_numpy(indices).to(here), out=found)
        else:
            for row, index in enumerate(indices.tolist()):
                image = self[index]
                found[row, : image.shape[0], : image.shape[1]] = image
        return found.to(device, non_blocking=True)


def write_header(file: BinaryIO, sizes: np.ndarray, digests: np.ndarray) -> int:
    """Write the beginning of a file of decoded images; returns where its pixels start."""
    np.save(file, sizes)
    np.save(file, digests)
    file.flush()
    return _aligned(file.tell())


def read_images(path: Path, planar: bool) -> HeldImages:
    """The images of a file, which stays on disk until it is read.

    Raises: RunError if the file is not what was written.
    """
    try:
        with path.open("rb") as file:
            sizes, digests = np.load(file), np.load(file)
            start = _aligned(file.tell())
        pixels = np.memmap(path, mode="r", offset=start)
        with warnings.catch_warnings():
            # Nothing writes to it.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return HeldImages(torch.from_numpy(pixels), sizes, digests, planar)
    except (ValueError, RuntimeError, EOFError) as error:
        raise RunError(f"{path} is damaged ({str(error).splitlines()[0]}); delete it") from error


def _aligned(position: int) -> int:
    return -(-position // _PAGE) * _PAGE
