"""Turning many grey images at once, with the very pixels that PIL gives."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_CHUNK_BYTES = 1 << 20  # of float64 pixels; a few such arrays are alive at once and stay in the cache


class _Grid(NamedTuple):
    """Where the P pixels that are not filled come from: the same for every image of a size.

    Attributes:
        place: flat index of each pixel in the output, (P,).
        corners: flat source indices of its neighbours top left, top right, bottom left, bottom right, (4, P).
        dx, dy: the right and the bottom neighbours' weights, (P, 1) float64.
    """

    place: NDArray[np.intp]
    corners: NDArray[np.intp]
    dx: NDArray[np.float64]
    dy: NDArray[np.float64]


def rotate_like_pil(images: NDArray[np.uint8], angle: float) -> NDArray[np.uint8]:
    """Turns images counter-clockwise about their centre, bilinearly; what comes from outside is 0.

    Every value equals that of PIL's `Image.rotate(angle, Image.Resampling.BILINEAR, fillcolor=0)` of a
    mode L image, which is torchvision's functional `rotate` with fill 0 and without expansion.

    Args:
        images: (N, H, W) uint8; left as it is.
        angle: degrees, finite.

    Returns:
        (N, H, W) uint8, a new array.

    Raises:
        ValueError: images of another dtype or number of axes, or an angle that is not finite.
    """
    if images.dtype != np.uint8 or images.ndim != 3:
        raise ValueError(f"images are {images.dtype} of shape {images.shape}; pass uint8 of shape (N, H, W)")
    if not math.isfinite(angle):
        raise ValueError(f"the angle is {angle}; pass a finite number of degrees")
    n, height, width = images.shape
    quarters, rest = divmod(angle % 360.0, 90.0)
    if rest == 0 and (quarters % 2 == 0 or height == width):
        return np.rot90(images, int(quarters), axes=(1, 2)).copy()
    grid = _sampling_grid(height, width, angle)
    flat = images.reshape(n, height * width)
    turned = np.zeros_like(flat)
    step = max(1, _CHUNK_BYTES // (8 * max(1, height * width)))
    for start in range(0, n, step):
        chunk = slice(start, start + step)
        turned[chunk, grid.place] = _blend(flat[chunk], grid).T
    return turned.reshape(images.shape)


def _sampling_grid(height: int, width: int, angle: float) -> _Grid:
    """Sends the output pixels' centres through the inverse rotation, in PIL's order of operations."""
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
    # Beyond the border the neighbour is the border pixel itself, so that blending changes nothing.
    columns = np.clip([left, left + 1], 0, width - 1).astype(np.intp)
    rows = np.clip([top, top + 1], 0, height - 1).astype(np.intp)
    corners = (rows[:, None] * width + columns[None]).reshape(4, -1)
    return _Grid(np.flatnonzero(inside), corners, (x - left)[:, None], (y - top)[:, None])


def _blend(flat: NDArray[np.uint8], grid: _Grid) -> NDArray[np.uint8]:
    """Values of the grid's P pixels in n images (n, H * W), as (P, n): PIL cuts the fraction off."""
    # Pixels first: a neighbour of all images is then one stretch of memory.
    pixels = np.ascontiguousarray(flat.T).astype(np.float64)
    top_left, top_right, bottom_left, bottom_right = (pixels[corner] for corner in grid.corners)
    top = _between(top_left, top_right, grid.dx)
    bottom = _between(bottom_left, bottom_right, grid.dx)
    return _between(top, bottom, grid.dy).astype(np.uint8)


def _between(
    a: NDArray[np.float64], b: NDArray[np.float64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """a + (b - a) * weight, each operation rounded as PIL's; overwrites b."""
    b -= a
    b *= weight
    b += a
    return b
