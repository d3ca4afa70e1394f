"""Random crops, and resizing as PIL's bilinear filter does it."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SCALE = (0.7, 1.0)
RATIO = (3 / 4, 4 / 3)
TRIES = 10


def boxes(uniforms: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Crops as torchvision's RandomResizedCrop draws them: top, left, height, width, (B, 4) int64.

    An area uniform in `SCALE` and a logarithm of width / height uniform in that of `RATIO`, drawn until the
    crop fits, ten times at most; then the largest crop in the middle whose ratio is allowed.

    Args:
        uniforms: (B, TRIES, 4) from [0, 1).
        sizes: (B, 2), height and width of the images.
    """
    height, width = sizes[:, :1], sizes[:, 1:]
    area = height * width * (SCALE[0] + (SCALE[1] - SCALE[0]) * uniforms[..., 0])
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    ratio = np.exp(low + (high - low) * uniforms[..., 1])
    wide, high_ = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (wide > 0) & (wide <= width) & (high_ > 0) & (high_ <= height)
    first, rows = fits.argmax(axis=1), np.arange(len(sizes))
    h, w = high_[rows, first], wide[rows, first]
    top = np.floor(uniforms[rows, first, 2] * (height[:, 0] - h + 1))
    left = np.floor(uniforms[rows, first, 3] * (width[:, 0] - w + 1))
    found = np.stack([top, left, h, w], axis=1)
    return np.where(fits.any(axis=1, keepdims=True), found, _middle(height, width)).astype(np.int64)


def _middle(height: np.ndarray, width: np.ndarray) -> np.ndarray:
    """The largest crop (B, 4) in the middle with an allowed ratio, of columns (B, 1)."""
    w = np.minimum(width, np.rint(height * RATIO[1]))
    h = np.minimum(height, np.rint(width / RATIO[0]))
    return np.concatenate([(height - h) // 2, (width - w) // 2, h, w], axis=1)


def resized_crop(image: Tensor, box: np.ndarray, side: int, flip: bool) -> Tensor:
    """A crop of an image (H, W, 3) uint8 on the CPU, resized to (3, side, side) uint8, flipped if `flip`."""
    top, left, height, width = box.tolist()
    crop = image[top : top + height, left : left + width].permute(2, 0, 1).unsqueeze(0)
    resized = F.interpolate(crop, size=(side, side), mode="bilinear", antialias=True)[0]
    return resized.flip(2) if flip else resized


def resized_crops(images: Tensor, crops: np.ndarray, side: int, flips: np.ndarray) -> Tensor:
    """Crops of many images, as two products of matrices, which suits devices: no loop over the images.

    Args:
        images: (B, H, W, 3) uint8; what lies outside a crop does not matter.
        crops: (B, 4) of `boxes`.
        side: S, of the result.
        flips: (B,) whether to flip.

    Returns: (B, 3, S, S) float32, whole numbers.
    """
    device = images.device
    # Bytes are exact in half precision; it adds less than PIL's rounding between the two directions.
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    numbers = torch.from_numpy(np.concatenate([crops, flips[:, None]], axis=1)).to(device, non_blocking=True)
    top, left, height, width, flip = numbers.float().unbind(1)
    down = _weights(top, height, side, images.shape[1], torch.zeros_like(flip)).to(dtype)
    across = _weights(left, width, side, images.shape[2], flip).to(dtype)
    pixels = images.permute(0, 3, 1, 2).to(dtype)
    resized = down.unsqueeze(1) @ pixels @ across.unsqueeze(1).transpose(2, 3)
    return resized.float().round_().clamp_(0, 255)


def _weights(start: Tensor, length: Tensor, side: int, size: int, flip: Tensor) -> Tensor:
    """Weight (B, S, size) of each pixel along a line in each pixel of the result.

    PIL's bilinear filter is a triangle around the result's centre, as wide as two of the larger pixels, cut
    off at the edge of the crop, with a sum of 1.
    """
    start, length = start.view(-1, 1, 1), length.view(-1, 1, 1)
    scale = length / side
    place = torch.arange(side, device=start.device).view(1, -1, 1)
    place = torch.where(flip.view(-1, 1, 1) > 0, side - 1 - place, place)
    pixel = torch.arange(size, device=start.device).view(1, 1, -1) - start
    distance = (pixel + 0.5 - (place + 0.5) * scale).abs() / scale.clamp(min=1)
    weights = (1 - distance).clamp_(min=0).mul_((pixel >= 0) & (pixel < length))
    return weights / weights.sum(2, keepdim=True)
