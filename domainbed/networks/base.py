"""The contract of a featurizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from domainbed.errors import UsageError
from domainbed.hparams import Table

Provenance = Mapping[str, str]
"""Origin of initial weights: their `name`, and the `sha256` of their file. For a user's file of which parts
were left out or renamed also what was `adapted`, in words."""

NO_WEIGHTS: Provenance = {"name": "none", "sha256": ""}
"""Provenance of a network with random initial weights."""


class FeaturizerModule(nn.Module):
    """A network from inputs (B, *input_shape) to features (B, n_outputs).

    Attributes:
        n_outputs: number of features.
        activation: module applied to the features. It is the identity unless an algorithm (URM) replaces it.
        provenance: origin of the initial weights.
        SMALLEST: smallest height and width of an image, in pixels.
        HPARAMS: hyper-parameters of the featurizer, as those of an algorithm; those of base classes are
            inherited. A run that names the featurizer has a value for each in `hparams`.
        READS: optional hyper-parameters (`domainbed.hparams.OPTIONS`) that the featurizer reads, see
            `options.reads`; None if it does not say. Not inherited by classes of plugins.
        SAMPLEWISE: whether the features of a sample depend on that sample alone, apart from batch norms in
            training mode. Methods that need the gradient of each environment are faster with such networks.
    """

    SMALLEST: ClassVar[int] = 1
    SAMPLEWISE: ClassVar[bool] = False
    HPARAMS: ClassVar[Table] = {}
    READS: ClassVar[tuple[str, ...] | None] = None

    n_outputs: int
    activation: nn.Module
    provenance: Provenance = NO_WEIGHTS

    @classmethod
    def channels(cls, input_shape: tuple[int, ...]) -> int:
        """Number of channels of an image of shape `input_shape`.

        Raises: UsageError if the shape is not (channels, height, width), or the image is too small.
        """
        if len(input_shape) != 3 or min(input_shape[1:]) < cls.SMALLEST:
            raise UsageError(
                f"featurizer {cls.__name__} takes images (channels, height, width) of {cls.SMALLEST} pixels "
                f"or more a side, not inputs of shape {tuple(input_shape)}; choose another one with the "
                'hyper-parameter "featurizer"'
            )
        return input_shape[0]


def provenance_of(network: nn.Module) -> Provenance:
    """Provenance of the first featurizer in `network` with pretrained weights, else `NO_WEIGHTS`."""
    for module in network.modules():
        if isinstance(module, FeaturizerModule) and module.provenance is not NO_WEIGHTS:
            return module.provenance
    return NO_WEIGHTS
