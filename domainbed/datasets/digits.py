"""ColoredDigits and RotatedDigits: small counterparts of the MNIST datasets that need no download."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from domainbed.datasets import REGISTRY
from domainbed.datasets.base import MultipleDomainDataset
from domainbed.datasets.digit_environments import ANGLES, COLORS, colored_by, deal, fingerprint, rotated

if TYPE_CHECKING:
    from torch import Tensor


class Digits(MultipleDomainDataset):
    """Base: the 1,797 handwritten digits of 8x8 pixels that scikit-learn ships (Alpaydin and Kaynak 1998).

    Their grey levels 0 to 16 become bytes from 0 to 255.
    """

    SMALL_IMAGES = True

    @classmethod
    def missing(cls, root: str | None) -> str | None:
        """What to install, in one line; None if scikit-learn is there. `root` is not needed."""
        if importlib.util.find_spec("sklearn"):
            return None
        return f"{cls.__name__} is made from scikit-learn's digits: pip install scikit-learn"

    @classmethod
    def read(cls) -> tuple[Tensor, Tensor]:
        """Images (1797, 8, 8) uint8 and labels (1797,) int64; raises UsageError without scikit-learn."""
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
    """ColoredMNIST over scikit-learn's digits: colour tells more than shape (Arjovsky et al. 2019).

    Digits below five or not; the label is wrong for a quarter of them; the colour (one of two channels)
    differs from the label with a probability of 0.1, 0.2, 0.9. 599 digits an environment, dealt and
    coloured anew for each `--seed`. Inputs (2, 8, 8) in [0, 1].

    With the hyper-parameter `copies` each digit is there that many times, each time with its own wrong
    label and colour, so that a network can't learn the noise of so few digits by heart. Copies stay in one
    environment, but `--splits holdout` would put them into both parts. With `grey` there is no colour.
    """

    ENVIRONMENTS = tuple(COLORS)
    INPUT_SHAPE = (2, 8, 8)

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        self.datasets = deal(*self.read(), list(COLORS.values()), colored_by(hparams))
        self.drawn_from = fingerprint(*self.read())
        self.input_shape = self.INPUT_SHAPE
        self.num_classes = 2


@REGISTRY.register()
class RotatedDigits(Digits):
    """RotatedMNIST over scikit-learn's digits: turned by 0 to 75 degrees (after Ghifary et al. 2015).

    299 or 300 images an environment, dealt anew for each `--seed`. Inputs (1, 8, 8) in [0, 1].
    """

    ENVIRONMENTS = tuple(ANGLES)
    INPUT_SHAPE = (1, 8, 8)

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        self.datasets = deal(*self.read(), list(ANGLES.values()), rotated)
        self.drawn_from = fingerprint(*self.read())
        self.input_shape = self.INPUT_SHAPE
        self.num_classes = 10
