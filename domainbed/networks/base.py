"""The contract of a featurizer."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from domainbed.errors import UsageError


class FeaturizerModule(nn.Module):
    """Maps inputs (B, *input_shape) to features (B, n_outputs).

    Attributes:
        n_outputs: number of features.
        activation: applied to the features; the identity, until an algorithm (URM) replaces it.
        SMALLEST: smallest height and width of an image, in pixels.
        SAMPLEWISE: whether a sample's features depend on that sample alone, but for batch norm in training.
            Gradient surgery is faster then.
    """

    SMALLEST: ClassVar[int] = 1
    SAMPLEWISE: ClassVar[bool] = False

    n_outputs: int
    activation: nn.Module

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
