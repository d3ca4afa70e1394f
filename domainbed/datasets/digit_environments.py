"""Environments of grey images of digits: distributed over environments, then coloured or rotated.

Random numbers are drawn from torch's global generator, as in upstream's MNIST datasets. A run seeds it with
its `--seed`, so each trial has its own noise and colours, and runs with paired seeds share them.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from domainbed.hparams import OPTIONS, Hparam, Reader, const, option

if TYPE_CHECKING:
    from torch import Tensor

    from domainbed.datasets.base import Environment
    from domainbed.datasets.uint8_images import UInt8Images

Parameter = TypeVar("Parameter")

# The first two are for ColoredDigits and ColoredMNIST_IRM; ColoredMNIST is upstream's.
OPTIONS["copies"] = Hparam(
    1,
    const(1),
    "ColoredDigits, ColoredMNIST_IRM: copies of each digit, each with its own noise",
    at_least=1,
    reader=Reader.DATASET,
)
OPTIONS["grey"] = Hparam(
    False,
    const(False),
    "ColoredDigits, ColoredMNIST_IRM: fill both channels, so that images have no colour",
    reader=Reader.DATASET,
)

OPTIONS["mnist"] = Hparam(
    "all",
    const("all"),
    "MNIST datasets: all 70,000 digits (ColoredMNIST_IRM: the training set's 60,000), or test, the 10,000 of "
    "the test set alone, which need two of the four files",
    choices=("all", "test"),
    reader=Reader.DATASET,
)

COLORS = {"+90%": 0.1, "+80%": 0.2, "-90%": 0.9}
"""Environment -> probability that the colour differs from the label (Arjovsky et al. 2019, section 5.1)."""
ANGLES = {str(angle): angle for angle in range(0, 90, 15)}
"""Environment -> degrees (Ghifary et al. 2015)."""

_CHUNK_BYTES = 1 << 20  # of float64 pixels, so that the few temporary arrays stay in the cache


def distribute(
    images: Tensor,
    labels: Tensor,
    parameters: Sequence[Parameter],
    make: Callable[[Tensor, Tensor, Parameter], Environment],
) -> list[Environment]:
    """Shuffle the images and give every K-th one to the same of K environments.

    Args:
        images: (N, H, W) uint8.
        labels: (N,) int64.
        parameters: K parameters, one for each environment.
        make: creates an environment from its images, labels and parameter. Called in the order of the
            environments.
    """
    import torch

    order = torch.randperm(len(images))
    images, labels = images[order], labels[order]
    k = len(parameters)
    return [make(images[i::k], labels[i::k], parameter) for i, parameter in enumerate(parameters)]


def digits_digest(images: Tensor, labels: Tensor) -> bytes:
    """SHA-256 of the digits that environments are drawn from (`MultipleDomainDataset.source_digest`)."""
    return hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).digest()


def colored(images: Tensor, labels: Tensor, flip: float, copies: int = 1, grey: bool = False) -> UInt8Images:
    """Digits below five (label 1) or not (label 0), in a colour that correlates with the label.

    The label is wrong for a quarter of the digits. The colour is that of the (wrong) label, and differs from
    it with probability `flip` (Arjovsky et al. 2019, section 5.1). The label noise of all images is drawn
    first, then the colour noise.

    Args:
        images: (N, H, W) uint8.
        labels: (N,) int64, the digits.
        flip: probability that the colour differs from the label.
        copies: number of times that the whole set of digits is repeated, each time with its own noise.
        grey: fill both channels. Labels stay the same, and no method can see a colour.

    Returns: inputs (2, H, W) in [0, 1]. Colour 1 leaves the first channel empty, colour 0 the second.
    """
    import torch

    images, labels = images.repeat(copies, 1, 1), labels.repeat(copies)
    y = (labels < 5) ^ (torch.rand(len(labels)) < 0.25)
    color = y ^ (torch.rand(len(labels)) < flip)
    x = torch.stack([images, images], dim=1)
    if not grey:
        x[torch.arange(len(x)), (~color).long()] = 0
    return _unit_range(x, y.long())


def colored_by(hparams: Mapping[str, Any]) -> Callable[[Tensor, Tensor, float], UInt8Images]:
    """`colored` with the hyper-parameters `copies` and `grey`. Raises UsageError for invalid ones."""
    copies, grey = int(option(hparams, "copies")), bool(option(hparams, "grey"))
    return functools.partial(colored, copies=copies, grey=grey)


def rotated(images: Tensor, labels: Tensor, angle: int) -> UInt8Images:
    """Digits rotated counter-clockwise by `angle` degrees: inputs (1, H, W) in [0, 1].

    Pixels are those of `PIL.Image.rotate`, rounded down to uint8 as in upstream's dataset.

    Args:
        images: (N, H, W) uint8.
        labels: (N,) int64, the digits.
        angle: degrees.
    """
    import torch

    return _unit_range(torch.from_numpy(rotate_like_pil(images.numpy(), angle)).unsqueeze(1), labels)


def _unit_range(x: Tensor, y: Tensor) -> UInt8Images:
    """The environment of x / 255."""
    from domainbed.datasets.uint8_images import UInt8Images

    return UInt8Images(x, y, mean=0.0, std=1.0)


def rotate_like_pil(images: NDArray[np.uint8], angle: float) -> NDArray[np.uint8]:
    """Rotate images counter-clockwise about their centres, with bilinear interpolation and zero fill.

    Every pixel equals that of `Image.rotate(angle, Image.Resampling.BILINEAR, fillcolor=0)` for a PIL image
    of mode L, which is also torchvision's functional `rotate` with fill 0 and without expansion.

    Args:
        images: (N, H, W) uint8; not modified.
        angle: degrees, finite.

    Returns: (N, H, W) uint8, a new array.

    Raises: ValueError for another dtype or number of dimensions, or for an angle that is not finite.
    """
    if images.dtype != np.uint8 or images.ndim != 3:
        raise ValueError(f"images are {images.dtype} of shape {images.shape}; pass uint8 of shape (N, H, W)")
    if not math.isfinite(angle):
        raise ValueError(f"the angle is {angle}; pass a finite number of degrees")
    n, height, width = images.shape
    quarters, remainder = divmod(angle % 360.0, 90.0)
    if remainder == 0 and (quarters % 2 == 0 or height == width):
        return np.rot90(images, int(quarters), axes=(1, 2)).copy()
    grid = _sampling_grid(height, width, angle)
    flat = images.reshape(n, height * width)
    result = np.zeros_like(flat)
    step = max(1, _CHUNK_BYTES // (8 * max(1, height * width)))
    for start in range(0, n, step):
        chunk = slice(start, start + step)
        result[chunk, grid.place] = _interpolate(flat[chunk], grid).T
    return result.reshape(images.shape)


class _Grid(NamedTuple):
    """Sources of the P output pixels that lie inside the image, for all images of one size.

    Attributes:
        place: flat index of each pixel in the output, (P,).
        corners: flat indices of its source pixels top left, top right, bottom left, bottom right, (4, P).
        dx, dy: weights of the right and of the bottom source pixels, (P, 1) float64.
    """

    place: NDArray[np.intp]
    corners: NDArray[np.intp]
    dx: NDArray[np.float64]
    dy: NDArray[np.float64]


def _sampling_grid(height: int, width: int, angle: float) -> _Grid:
    """Map the centres of the output pixels through the inverse rotation, in PIL's order of operations."""
    radians = -math.radians(angle % 360.0)
    cos, sin = round(math.cos(radians), 15), round(math.sin(radians), 15)
    cx, cy = width / 2, height / 2
    x0 = cos * -cx + sin * -cy + cx
    y0 = -sin * -cx + cos * -cy + cy
    row, column = np.mgrid[:height, :width] + 0.5
    x = cos * column + sin * row + x0
    y = -sin * column + cos * row + y0
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = x[inside] - 0.5, y[inside] - 0.5
    left, top = np.floor(x), np.floor(y)
    # Beyond the border, a source pixel is the border pixel itself, so that interpolation has no effect.
    columns = np.clip([left, left + 1], 0, width - 1).astype(np.intp)
    rows = np.clip([top, top + 1], 0, height - 1).astype(np.intp)
    corners = (rows[:, None] * width + columns[None]).reshape(4, -1)
    return _Grid(place=np.flatnonzero(inside), corners=corners, dx=(x - left)[:, None], dy=(y - top)[:, None])


def _interpolate(flat: NDArray[np.uint8], grid: _Grid) -> NDArray[np.uint8]:
    """Values (P, n) of the grid's pixels in n images (n, H * W), rounded down as by PIL."""
    # With pixels first, a source pixel of all images is one contiguous block of memory.
    pixels = np.ascontiguousarray(flat.T).astype(np.float64)
    top_left, top_right, bottom_left, bottom_right = (pixels[corner] for corner in grid.corners)
    top = _lerp(top_left, top_right, grid.dx)
    bottom = _lerp(bottom_left, bottom_right, grid.dx)
    return _lerp(top, bottom, grid.dy).astype(np.uint8)


def _lerp(a: NDArray[np.float64], b: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """a + (b - a) * weight, with each operation rounded as in PIL. Overwrites b."""
    b -= a
    b *= weight
    b += a
    return b
