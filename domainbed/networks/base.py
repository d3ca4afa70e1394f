"""The contract of a featurizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from domainbed.errors import UsageError

Provenance = Mapping[str, str]
"""Where weights come from: their `name`, and the `sha256` of their file."""

NO_WEIGHTS: Provenance = {"name": "none", "sha256": ""}
"""Of a network that starts from random weights."""


class FeaturizerModule(nn.Module):
    """Maps inputs (B, *input_shape) to features (B, n_outputs).

    Attributes:
        n_outputs: number of features.
        activation: applied to the features; the identity, until an algorithm (URM) replaces it.
        provenance: where its initial weights come from.
        SMALLEST: smallest height and width of an image, in pixels.
        SAMPLEWISE: whether a sample's features depend on that sample alone, but for batch norm in training.
            Gradient surgery is faster then.
    """

    SMALLEST: ClassVar[int] = 1
    SAMPLEWISE: ClassVar[bool] = False

    n_outputs: int
    activation: nn.Module
    provenance: Provenance = NO_WEIGHTS

    @classmethod
    def channels(cls, input_shape: tuple[int, ...]) -> int:
        """Number of channels of an image of this shape; raises `UsageError` for what is no such image."""
        if len(input_shape) != 3 or min(input_shape[1:]) < cls.SMALLEST:
            raise UsageError(
                f"featurizer {cls.__name__} takes images (channels, height, width) of {cls.SMALLEST} pixels "
                f"or more a side, not inputs of shape {tuple(input_shape)}; name another one as "
                'hyper-parameter "featurizer"'
            )
        return input_shape[0]


def provenance_of(network: nn.Module) -> Provenance:
    """Where the weights come from that the featurizers of an algorithm started with."""
    featurizers = [module for module in network.modules() if isinstance(module, FeaturizerModule)]
    pretrained = [each.provenance for each in featurizers if each.provenance is not NO_WEIGHTS]
    return pretrained[0] if pretrained else NO_WEIGHTS
