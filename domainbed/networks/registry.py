"""Registry of featurizers by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from domainbed.registry import Registry

if TYPE_CHECKING:
    from domainbed.networks.base import FeaturizerModule

    FeaturizerClass = Callable[[tuple[int, ...], dict[str, Any]], FeaturizerModule]

_FIRST = (
    "mlp",
    "mnist_cnn",
    "wide_resnet",
    "small_cnn",
    "resnet",
    "resnet18",
    "resnet50",
    "efficientnet_lite0",
    "dinov2",
    "clip",
)

FEATURIZERS: Registry[FeaturizerClass] = Registry.of_module(
    "Featurizer", home="domainbed.networks", first=_FIRST
)

TIMM_PREFIX = "timm:"
"""Prefix of featurizer names that refer to networks of timm."""


def featurizer_class(name: str) -> FeaturizerClass:
    """The featurizer registered as `name`, or timm's network for a name "timm:NETWORK" or "timm:NETWORK.TAG".

    Raises: UnknownName for an unknown featurizer or network; UsageError for an unknown tag, or if timm is
        not installed.
    """
    if not name.startswith(TIMM_PREFIX):
        return FEATURIZERS[name]
    from domainbed.networks.timm_networks import timm_featurizer

    return timm_featurizer(name.removeprefix(TIMM_PREFIX))
