"""Augmentation of many images at once: upstream's steps, chances and roundings, by other random numbers.

Random crop of 70 to 100 % of the area, flip, brightness, contrast, saturation and hue in random order, grey.
All numbers are drawn on the CPU from the generator of the minibatch, whatever the device.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from domainbed.datasets.image_transforms import IMAGENET_MEAN, IMAGENET_STD
from domainbed.images import colors, crops

STRENGTHS = (0.3, 0.3, 0.3, 0.3)
"""Of brightness, contrast, saturation (factors from 1 - s to 1 + s) and hue (from -s to s turns)."""

_FLIPPED, _GREY = 0.5, 0.1
_PER_IMAGE = 4 * crops.TRIES + 10  # numbers drawn for an image, whatever becomes of them


@dataclass(frozen=True)
class Draws:
    """What is random about B images.

    Attributes:
        crops: (B, 10, 4) uniforms of the crop.
        flips: (B,) bool.
        factors: (B, 4) float64: of brightness, contrast and saturation, and the turn of the hue.
        orders: (B, 4): numbers of the four in the order in which they come.
        greys: (B,) bool.
    """

    crops: np.ndarray
    flips: np.ndarray
    factors: np.ndarray
    orders: np.ndarray
    greys: np.ndarray


def draw(rng: np.random.Generator, count: int) -> Draws:
    """The draws of `count` images; those of an image do not depend on how many follow it."""
    numbers = rng.random((count, _PER_IMAGE))
    crop, rest = numbers[:, : 4 * crops.TRIES], numbers[:, 4 * crops.TRIES :]
    centers = np.array([1.0, 1.0, 1.0, 0.0])
    return Draws(
        crops=crop.reshape(count, crops.TRIES, 4),
        flips=rest[:, 0] < _FLIPPED,
        factors=centers + (2 * rest[:, 1:5] - 1) * STRENGTHS,
        orders=rest[:, 5:9].argsort(axis=1),
        greys=rest[:, 9] < _GREY,
    )


def augment_each(images: Sequence[Tensor], draws: Draws, side: int, crop: bool) -> Tensor:
    """One image after the other, which suits a processor's cache.

    Args:
        images: B images (H, W, 3) uint8 of any sizes, on the CPU.
        draws: of B images.
        side: S, of the result.
        crop: whether to crop; otherwise the images are (S, S, 3).

    Returns: inputs (B, 3, S, S) float32, normalised.
    """
    boxes = _boxes(draws, np.array([image.shape[:2] for image in images]), crop)
    factors = _steps(draws)
    inputs = torch.empty((len(images), 3, side, side))
    # Without the bookkeeping for gradients; what is made outside is an ordinary tensor.
    with torch.inference_mode():
        x = torch.empty((1, 3, side, side))
        for i, image in enumerate(images):
            x[0] = crops.resized_crop(image, boxes[i], side, bool(draws.flips[i]))
            colors.jitter(x, factors[i : i + 1], draws.orders[i : i + 1])
            if draws.greys[i]:
                colors.grey(x)
            normalise(x, out=inputs[i : i + 1])
    return inputs


def augment_together(images: Tensor, sizes: np.ndarray, draws: Draws, side: int, crop: bool) -> Tensor:
    """All images in each step, which suits a device.

    Args:
        images: (B, H, W, 3) uint8 on the device; an image may fill its upper left corner alone.
        sizes: (B, 2), height and width of each.
        draws, side, crop: as in `augment_each`.

    Returns: inputs (B, 3, S, S) float32 on the device, normalised.
    """
    x = crops.resized_crops(images, _boxes(draws, sizes, crop), side, draws.flips)
    colors.jitter(x, _steps(draws).to(x.device, non_blocking=True), draws.orders)
    if draws.greys.any():
        rows = torch.from_numpy(draws.greys.nonzero()[0]).to(x.device, non_blocking=True)
        x.index_copy_(0, rows, colors.grey(x[rows]))
    return normalise(x, out=x)


def normalise(x: Tensor, out: Tensor) -> Tensor:
    """Bytes (..., 3, H, W) as torchvision's ToTensor and Normalize, with ImageNet's numbers, give them.

    `x` is overwritten; `out` may be `x`.
    """
    mean, std = _mean_and_std(x.device)
    return torch.div(x.div_(255).sub_(mean), std, out=out)


@functools.cache
def _mean_and_std(device: torch.device) -> tuple[Tensor, Tensor]:
    """(3, 1, 1) each."""
    mean, std = (torch.tensor(values).view(3, 1, 1).to(device) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return mean, std


def _boxes(draws: Draws, sizes: np.ndarray, crop: bool) -> np.ndarray:
    return crops.boxes(draws.crops, sizes) if crop else np.insert(sizes, (0, 0), 0, axis=1)


def _steps(draws: Draws) -> Tensor:
    """Factors (B, 4) float32 as `colors.jitter` takes them: the hue's as torchvision rounds it."""
    factors = draws.factors.copy()
    factors[:, 3] = np.trunc(255 * factors[:, 3]) % 256
    return torch.from_numpy(factors.astype(np.float32))
