"""Small and large images: upstream chooses learning rates and batch sizes by this."""

from __future__ import annotations

from collections.abc import Callable

from domainbed.errors import UnknownName
from domainbed.hparams import Hparam

SMALL_IMAGES = ["Debug28", "RotatedMNIST", "ColoredMNIST"]
"""Upstream's list. A dataset of ours says it with its class attribute `SMALL_IMAGES`."""


def is_small(dataset: str) -> bool:
    """Whether `dataset` counts as small; unknown names count as large, as in upstream."""
    if dataset in SMALL_IMAGES:
        return True
    from domainbed.datasets import REGISTRY

    try:
        return REGISTRY[dataset].SMALL_IMAGES
    except UnknownName:
        return False


def by_size(small: Hparam, large: Hparam, **named: Hparam) -> Callable[[str], Hparam]:
    """Declaration of a hyper-parameter by the size of the dataset's images, or by its name."""

    def declare(dataset: str) -> Hparam:
        return named.get(dataset) or (small if is_small(dataset) else large)

    return declare
