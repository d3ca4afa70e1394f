"""Upstream's augmentation, on many decoded images at once.

Random crop of 70 to 100 % of the area, horizontal flip, brightness, contrast, saturation and hue in random
order, greyscale. Probabilities, ranges and PIL's roundings are upstream's; random numbers are not. They are
drawn on the CPU from the generator of the minibatch, whatever the device.
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
"""s of brightness, contrast, saturation (factors from 1 - s to 1 + s) and hue (from -s to s turns)."""

_FLIP_PROBABILITY, _GREY_PROBABILITY = 0.5, 0.1
_NUMBERS_PER_IMAGE = 4 * crops.TRIES + 10  # some are not used


@dataclass(frozen=True)
class Draws:
    """Random numbers for B images.

    Attributes:
        crops: uniform numbers for the crops, (B, 10, 4).
        flips: whether to flip, (B,) bool.
        factors: factors of brightness, contrast and saturation, and the turn of the hue, (B, 4) float64.
        orders: order in which these four are applied, (B, 4).
        greys: whether to convert to greyscale, (B,) bool.
    """

    crops: np.ndarray
    flips: np.ndarray
    factors: np.ndarray
    orders: np.ndarray
    greys: np.ndarray


def draw(rng: np.random.Generator, count: int) -> Draws:
    """Random numbers for `count` images. Those of an image do not depend on the number of images after it."""
    numbers = rng.random((count, _NUMBERS_PER_IMAGE))
    crop, rest = numbers[:, : 4 * crops.TRIES], numbers[:, 4 * crops.TRIES :]
    centers = np.array([1.0, 1.0, 1.0, 0.0])
    return Draws(
        crops=crop.reshape(count, crops.TRIES, 4),
        flips=rest[:, 0] < _FLIP_PROBABILITY,
        factors=centers + (2 * rest[:, 1:5] - 1) * STRENGTHS,
        orders=rest[:, 5:9].argsort(axis=1),
        greys=rest[:, 9] < _GREY_PROBABILITY,
    )


def augment_one_by_one(images: Sequence[Tensor], draws: Draws, side: int, crop: bool) -> Tensor:
    """Augment and normalise images one after the other, so that each stays in the processor's cache.

    Args:
        images: B images (H, W, 3) uint8 of any sizes, on the CPU.
        draws: random numbers for B images.
        side: side S of an input.
        crop: whether to crop. If not, the images must be (S, S, 3).

    Returns: inputs (B, 3, S, S) float32.
    """
    boxes = _boxes(draws, np.array([image.shape[:2] for image in images]), crop)
    factors = _jitter_factors(draws)
    inputs = torch.empty((len(images), 3, side, side))
    # Inference mode skips autograd's bookkeeping. `inputs` was created outside, so it is an ordinary tensor.
    with torch.inference_mode():
        x = torch.empty((1, 3, side, side))
        for i, image in enumerate(images):
            x[0] = crops.resized_crop(image, boxes[i], side, bool(draws.flips[i]))
            colors.jitter(x, factors[i : i + 1], draws.orders[i : i + 1])
            if draws.greys[i]:
                colors.grey(x)
            normalise(x, out=inputs[i : i + 1])
    return inputs


def augment_batch(images: Tensor, sizes: np.ndarray, draws: Draws, side: int, crop: bool) -> Tensor:
    """Augment and normalise all images in each step, which suits a GPU.

    Args:
        images: (B, H, W, 3) uint8 on any device; each is padded at the bottom and on the right.
        sizes: height and width of each image, (B, 2).
        draws, side, crop: as in `augment_one_by_one`.

    Returns: inputs (B, 3, S, S) float32 on the device of `images`.
    """
    x = crops.resized_crops(images, _boxes(draws, sizes, crop), side, draws.flips)
    colors.jitter(x, _jitter_factors(draws).to(x.device, non_blocking=True), draws.orders)
    if draws.greys.any():
        rows = torch.from_numpy(draws.greys.nonzero()[0]).to(x.device, non_blocking=True)
        x.index_copy_(0, rows, colors.grey(x[rows]))
    return normalise(x, out=x)


def normalise(x: Tensor, out: Tensor) -> Tensor:
    """(x / 255 - mean) / std with ImageNet's statistics, rounded as by torchvision's ToTensor and Normalize.

    Args:
        x: (..., 3, H, W) float32 from 0 to 255; overwritten.
        out: tensor for the result; may be `x`.
    """
    mean, std = _mean_and_std(x.device)
    return torch.div(x.div_(255).sub_(mean), std, out=out)


@functools.cache
def _mean_and_std(device: torch.device) -> tuple[Tensor, Tensor]:
    """ImageNet's mean and standard deviation on `device`, (3, 1, 1) each."""
    mean, std = (torch.tensor(values).view(3, 1, 1).to(device) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return mean, std


def _boxes(draws: Draws, sizes: np.ndarray, crop: bool) -> np.ndarray:
    """Crop (B, 4) of each image; without `crop`, the whole image."""
    return crops.boxes(draws.crops, sizes) if crop else np.insert(sizes, (0, 0), 0, axis=1)


def _jitter_factors(draws: Draws) -> Tensor:
    """Factors (B, 4) float32 for `colors.jitter`, with the hue in PIL's steps, rounded as by torchvision."""
    factors = draws.factors.copy()
    factors[:, 3] = np.trunc(255 * factors[:, 3]) % 256
    return torch.from_numpy(factors.astype(np.float32))
