"""Colour jitter on tensors, with PIL's roundings.

Images are (B, 3, H, W) float32 with whole values from 0 to 255, and are modified in place. Factors have
shape (B, 1, 1, 1). As in PIL, values are rounded down after each operation. Brightness, contrast, saturation
and grey equal PIL's to the bit. Hue differs in few pixels, whose hue lies on the boundary between two of
PIL's 256 hues.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_LUMA = (19595 / 65536, 38470 / 65536, 7471 / 65536)
"""Weights of red, green and blue in PIL's conversion to grey; sums with them are exact in float32."""

_SEXTANT = 255 / 6
"""60 degrees in PIL's steps of hue."""

# Constants as tensors halve the overhead of an operation.
_HALF, _FULL, _ROUND, _WIDTH, _PER_STEP = map(
    torch.tensor, (0.5, 255.0, 1 / 256, _SEXTANT, 1 / 255 / _SEXTANT)
)
_GREEN, _CYAN, _BLUE = (torch.tensor(place * _SEXTANT) for place in (2, 3, 4))


def grey_level(x: Tensor) -> Tensor:
    """Greyscale value (B, 1, H, W) of each pixel."""
    red, green, blue = x.split(1, dim=1)
    level = torch.mul(red, _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])
    return level.add_(_HALF).floor_()


def grey(x: Tensor) -> Tensor:
    """Convert to greyscale with three equal channels."""
    return x.copy_(grey_level(x))


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Scale brightness by `factor`: 0 gives black, 1 the image itself."""
    return x.mul_(factor).clamp_(max=255).floor_()


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Scale contrast by `factor`: 0 gives the image's mean grey, 1 the image itself."""
    return _blend(x, grey_level(x).mean((1, 2, 3), keepdim=True).add_(0.5).floor_(), factor)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Scale saturation by `factor`: 0 gives greyscale, 1 the image itself."""
    return _blend(x, grey_level(x), factor)


def _blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """Interpolate from `other` (factor 0) to `x` (factor 1), or extrapolate beyond."""
    return x.sub_(other).mul_(factor).add_(other).clamp_(0, 255).floor_()


def hue(x: Tensor, shift: Tensor) -> Tensor:
    """Rotate the hue by `shift` of PIL's 256 steps, a whole number from 0 to 255.

    Value V, saturation S and hue are rounded as in PIL's mode HSV. A channel is V (1 - S w), where w is 0
    within 60 degrees of the channel's own hue, 1 from 120 degrees on, and linear in between.
    """
    red, green, blue = x.split(1, dim=1)
    # Few planes are reused, so that most of the work stays in the processor's cache.
    value, chroma, turned, w = x.new_empty((4, len(x), 1, *x.shape[2:])).unbind()
    torch.maximum(torch.maximum(red, green, out=value), blue, out=value)
    torch.minimum(torch.minimum(red, green, out=chroma), blue, out=chroma)
    torch.sub(value, chroma, out=chroma)
    # With M the highest channel and c = M - lowest, the angle between the hue and that of cyan is
    # (M + c + r - g - b) / c times 60 degrees, on the side of the sign of g - b: three cases in one formula.
    torch.add(value, chroma, out=turned).add_(red).sub_(green).sub_(blue)
    turned.div_(torch.clamp(chroma, min=1, out=w))
    turned.mul_(torch.sub(green, blue, out=w).add_(_HALF).sign_())
    # PIL rounds the step down and has 255 steps in a turn, but wraps around after 256.
    torch.sub(shift + _CYAN, turned, alpha=_SEXTANT, out=turned).floor_()
    turned.sub_(torch.mul(turned, _ROUND, out=w).floor_(), alpha=256)
    # V S for each step of w, with S in steps of 1/255.
    amount = chroma.mul_(_FULL).div_(torch.clamp(value, min=1, out=w)).floor_().mul_(value).mul_(_PER_STEP)
    for channel, center in ((red, _CYAN), (green, _GREEN), (blue, _BLUE)):
        torch.sub(turned, center, out=w).abs_().clamp_(_SEXTANT, 2 * _SEXTANT).sub_(_WIDTH)
        if channel is red:  # its hue is both 0 and 255, opposite to cyan
            w.neg_().add_(_WIDTH)
        torch.addcmul(value, w, amount, value=-1, out=channel)
    return x.round_()


CHANGES = (brightness, contrast, saturation, hue)
"""The four operations of colour jitter, in torchvision's order."""


def jitter(x: Tensor, factors: Tensor, orders: np.ndarray) -> Tensor:
    """Apply all four operations to each image, in an order of its own.

    Args:
        x: images (B, 3, H, W).
        factors: a factor for each of `CHANGES`, (B, 4), on the device of `x`.
        orders: a permutation of 0 to 3 for each image, (B, 4).
    """
    columns = factors.view(-1, 4, 1, 1, 1).unbind(1)
    if len(x) == 1:
        for number in orders[0]:
            CHANGES[number](x, columns[number])
        return x
    rows = torch.from_numpy(np.argsort(orders, axis=0, kind="stable")).to(x.device, non_blocking=True)
    for place in range(4):
        counts = np.bincount(orders[:, place], minlength=4).tolist()
        for number, group in enumerate(rows[:, place].split(counts)):
            if len(group):
                x.index_copy_(0, group, CHANGES[number](x[group], columns[number][group]))
    return x
