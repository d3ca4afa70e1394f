"""Environments made from grey images of digits: dealt, then coloured or turned.

Random numbers come from torch's global generator, as in upstream's MNIST datasets: a run seeds it with its
`--seed`, so that every trial has its own noise and colours, and runs with paired seeds share them.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from domainbed.datasets.rotation import rotate_like_pil
from domainbed.hparams import OPTIONS, Hparam, const, option

if TYPE_CHECKING:
    from torch import Tensor

    from domainbed.datasets.base import Environment
    from domainbed.datasets.uint8_images import UInt8Images

Parameter = TypeVar("Parameter")

# For ColoredDigits and ColoredMNIST_IRM; ColoredMNIST is upstream's.
OPTIONS["copies"] = Hparam(
    1, const(1), "ColoredDigits: number of copies of each digit, each with noise of its own", at_least=1
)
OPTIONS["grey"] = Hparam(
    False, const(False), "ColoredDigits: draw each digit into both channels, so that it has no colour"
)

COLORS = {"+90%": 0.1, "+80%": 0.2, "-90%": 0.9}
"""Environment -> probability that the colour differs from the label (Arjovsky et al. 2019)."""
ANGLES = {str(angle): angle for angle in range(0, 90, 15)}
"""Environment -> degrees (Ghifary et al. 2015)."""


def deal(
    images: Tensor,
    labels: Tensor,
    parameters: Sequence[Parameter],
    make: Callable[[Tensor, Tensor, Parameter], Environment],
) -> list[Environment]:
    """Shuffles the images, deals them in turn to the environments, and makes one after the other.

    Args:
        images: (N, H, W) uint8.
        labels: (N,) int64.
        parameters: one for each environment, for `make`.
        make: makes an environment of its images, labels and parameter.
    """
    import torch

    order = torch.randperm(len(images))
    images, labels = images[order], labels[order]
    k = len(parameters)
    return [make(images[i::k], labels[i::k], parameter) for i, parameter in enumerate(parameters)]


def fingerprint(images: Tensor, labels: Tensor) -> bytes:
    """Hash of the digits that environments are made of."""
    return hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).digest()


def colored(images: Tensor, labels: Tensor, flip: float, copies: int = 1, grey: bool = False) -> UInt8Images:
    """Digits below five (label 1) or not (0), in a colour that tells something of the label.

    Args:
        images: (N, H, W) uint8.
        labels: (N,) int64, the digits.
        flip: probability that the colour differs from the label.
        copies: how often each digit is there, each time with its own noise; all of them, then all again.
        grey: fill both channels: the reference that can't see any colour. The labels stay the same.

    Returns: inputs (2, H, W) in [0, 1], one channel of which is empty: the first where the colour is 1. The
    label is wrong for a quarter of the digits. Draws the label's noise for all images, then the colour's.
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
    """`colored` with the hyper-parameters `copies` and `grey`; raises UsageError for invalid ones."""
    copies, grey = int(option(hparams, "copies")), bool(option(hparams, "grey"))
    return functools.partial(colored, copies=copies, grey=grey)


def rotated(images: Tensor, labels: Tensor, angle: int) -> UInt8Images:
    """Digits turned counter-clockwise by `angle` degrees; inputs (1, H, W) in [0, 1].

    Args:
        images: (N, H, W) uint8.
        labels: (N,) int64, the digits.
        angle: degrees. PIL's cut to uint8 is part of the dataset.
    """
    import torch

    return _unit_range(torch.from_numpy(rotate_like_pil(images.numpy(), angle)).unsqueeze(1), labels)


def _unit_range(x: Tensor, y: Tensor) -> UInt8Images:
    """An environment of x / 255, held as uint8."""
    from domainbed.datasets.uint8_images import UInt8Images

    return UInt8Images(x, y, mean=0.0, std=1.0)
