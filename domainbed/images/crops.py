"""Random crops, and resizing that equals PIL's bilinear filter."""

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
    """Crops (top, left, height, width) with the distribution of torchvision's RandomResizedCrop.

    The share of the area is uniform in `SCALE`, and the logarithm of width / height is uniform between those
    of `RATIO`. The first of ten draws that fits into the image is taken. If none does, the crop is the
    largest central one with an allowed ratio.

    Args:
        uniforms: uniform numbers from [0, 1), (B, TRIES, 4).
        sizes: height and width of the images, (B, 2).

    Returns: (B, 4) int64.
    """
    height, width = sizes[:, :1], sizes[:, 1:]
    area = height * width * (SCALE[0] + (SCALE[1] - SCALE[0]) * uniforms[..., 0])
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    ratio = np.exp(low + (high - low) * uniforms[..., 1])
    h, w = np.rint(np.sqrt(area / ratio)), np.rint(np.sqrt(area * ratio))
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first, rows = fits.argmax(axis=1), np.arange(len(sizes))
    h, w = h[rows, first], w[rows, first]
    top = np.floor(uniforms[rows, first, 2] * (height[:, 0] - h + 1))
    left = np.floor(uniforms[rows, first, 3] * (width[:, 0] - w + 1))
    drawn = np.stack([top, left, h, w], axis=1)
    return np.where(fits.any(axis=1, keepdims=True), drawn, _central(height, width)).astype(np.int64)


def _central(height: np.ndarray, width: np.ndarray) -> np.ndarray:
    """The largest central crop (B, 4) with an allowed ratio; arguments are columns (B, 1)."""
    w = np.minimum(width, np.rint(height * RATIO[1]))
    h = np.minimum(height, np.rint(width / RATIO[0]))
    return np.concatenate([(height - h) // 2, (width - w) // 2, h, w], axis=1)


def resized_crop(image: Tensor, box: np.ndarray, side: int, flip: bool) -> Tensor:
    """Crop, resize and optionally flip an image.

    Args:
        image: (H, W, 3) uint8 on the CPU.
        box: crop (4,) of `boxes`.
        side: side S of the result.
        flip: whether to flip horizontally.

    Returns: (3, S, S) uint8.
    """
    top, left, height, width = box.tolist()
    crop = image[top : top + height, left : left + width].permute(2, 0, 1).unsqueeze(0)
    resized = F.interpolate(crop, size=(side, side), mode="bilinear", antialias=True)[0]
    return resized.flip(2) if flip else resized


def resized_crops(images: Tensor, crops: np.ndarray, side: int, flips: np.ndarray) -> Tensor:
    """Crop, resize and optionally flip many images, as two matrix products, which suits a GPU.

    Args:
        images: (B, H, W, 3) uint8; pixels outside the crops are ignored.
        crops: crops (B, 4) of `boxes`.
        side: side S of the results.
        flips: whether to flip each image horizontally, (B,) bool.

    Returns: (B, 3, S, S) float32 with whole values from 0 to 255, on the device of `images`.
    """
    device = images.device
    # Half precision represents bytes exactly, and adds less error than PIL's rounding between the directions.
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    numbers = torch.from_numpy(np.concatenate([crops, flips[:, None]], axis=1)).to(device, non_blocking=True)
    top, left, height, width, flip = numbers.float().unbind(1)
    down = _weights(top, height, side, images.shape[1], torch.zeros_like(flip)).to(dtype)
    across = _weights(left, width, side, images.shape[2], flip).to(dtype)
    pixels = images.permute(0, 3, 1, 2).to(dtype)
    resized = down.unsqueeze(1) @ pixels @ across.unsqueeze(1).transpose(2, 3)
    return resized.float().round_().clamp_(0, 255)


def _weights(start: Tensor, length: Tensor, side: int, size: int, flip: Tensor) -> Tensor:
    """Weight (B, S, size) of each source pixel of a line in each pixel of the result.

    PIL's bilinear filter is a triangle around the centre of the resulting pixel. It is as wide as two pixels
    of the coarser grid, truncated at the edges of the crop and normalised to sum 1.
    """
    start, length = start.view(-1, 1, 1), length.view(-1, 1, 1)
    scale = length / side
    place = torch.arange(side, device=start.device).view(1, -1, 1)
    place = torch.where(flip.view(-1, 1, 1) > 0, side - 1 - place, place)
    pixel = torch.arange(size, device=start.device).view(1, 1, -1) - start
    distance = (pixel + 0.5 - (place + 0.5) * scale).abs() / scale.clamp(min=1)
    weights = (1 - distance).clamp_(min=0).mul_((pixel >= 0) & (pixel < length))
    return weights / weights.sum(2, keepdim=True)
