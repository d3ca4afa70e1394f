"""ColoredDigits and RotatedDigits: small versions of the MNIST datasets that need no download."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from domainbed.datasets import REGISTRY
from domainbed.datasets.base import MultipleDomainDataset
from domainbed.datasets.digit_environments import (
    ANGLES,
    COLORS,
    colored_by,
    digits_digest,
    distribute,
    rotated,
)
from domainbed.datasets.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor


class Digits(MultipleDomainDataset):
    """Base class of datasets made from scikit-learn's 1,797 digits of 8x8 pixels (Alpaydin and Kaynak 1998).

    The grey levels from 0 to 16 are scaled to bytes from 0 to 255.
    """

    READS: ClassVar[tuple[str, ...] | None] = ()
    SMALL_IMAGES = True

    @classmethod
    def missing(cls, root: str | None) -> str | None:
        """One line that says to install scikit-learn; None if it is installed. `root` is ignored."""
        if importlib.util.find_spec("sklearn"):
            return None
        return f"{cls.__name__} needs scikit-learn's digits; run: pip install scikit-learn"

    @classmethod
    def read(cls) -> tuple[Tensor, Tensor]:
        """Images (1797, 8, 8) uint8 and labels (1797,) int64. Raises UsageError without scikit-learn."""
        cls.require(None)
        return _read()


@functools.cache
def _read() -> tuple[Tensor, Tensor]:
    import torch
    from sklearn.datasets import load_digits

    levels, labels = load_digits(return_X_y=True)
    images = np.rint(levels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


@REGISTRY.register()
class ColoredDigits(Digits):
    """ColoredMNIST made from scikit-learn's digits (after Arjovsky et al. 2019, section 5.1).

    Labels say whether a digit is below five, and are wrong for a quarter of the digits. The colour (one of
    two channels) differs from the label with probability 0.1, 0.2 or 0.9. Each environment has 599 digits,
    assigned and coloured anew for each `--seed`. Inputs (2, 8, 8) in [0, 1].

    The hyper-parameter `copies` repeats each digit, each time with its own label noise and colour, so that a
    network cannot memorise the noise of so few digits. Copies stay in one environment, but `--splits holdout`
    can put them in both parts. The hyper-parameter `grey` removes the colour.
    """

    READS = ("copies", "grey")
    ENVIRONMENTS = tuple(COLORS)
    INPUT_SHAPE = (2, 8, 8)

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        self.datasets = distribute(*self.read(), list(COLORS.values()), colored_by(hparams))
        self.source_digest = digits_digest(*self.read())
        self.input_shape = self.INPUT_SHAPE
        self.num_classes = 2


@REGISTRY.register()
class RotatedDigits(Digits):
    """RotatedMNIST made from scikit-learn's digits: rotated by 0 to 75 degrees (after Ghifary et al. 2015).

    Each environment has 299 or 300 images, assigned anew for each `--seed`. Inputs (1, 8, 8) in [0, 1].
    """

    ENVIRONMENTS = tuple(ANGLES)
    INPUT_SHAPE = (1, 8, 8)
    PREPROCESSING = Preprocessing(side=8, mean=(0.0,), std=(1.0,))

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        self.datasets = distribute(*self.read(), list(ANGLES.values()), rotated)
        self.source_digest = digits_digest(*self.read())
        self.input_shape = self.INPUT_SHAPE
        self.num_classes = 10
