"""MLP: fully connected layers, for vectors and small images."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from domainbed.errors import UsageError
from domainbed.hparams import option
from domainbed.networks import FEATURIZERS
from domainbed.networks.base import FeaturizerModule


class MLP(FeaturizerModule):
    """`mlp_depth` linear layers of `mlp_width` units, each but the last followed by dropout and ReLU.

    Args:
        n_inputs: length of an input.
        n_outputs: number of features.
        hparams: may hold `mlp_width`, `mlp_depth`, `mlp_dropout`.
    """

    SAMPLEWISE = True

    def __init__(self, n_inputs: int, n_outputs: int, hparams: dict[str, Any]) -> None:
        super().__init__()
        width = int(option(hparams, "mlp_width"))
        self.input = nn.Linear(n_inputs, width)
        self.dropout = nn.Dropout(float(option(hparams, "mlp_dropout")))
        self.hiddens = nn.ModuleList(
            nn.Linear(width, width) for _ in range(int(option(hparams, "mlp_depth")) - 2)
        )
        self.output = nn.Linear(width, n_outputs)
        self.n_outputs = n_outputs
        self.activation = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (B, n_inputs) to features (B, n_outputs)."""
        for layer in (self.input, *self.hiddens):
            x = F.relu(self.dropout(layer(x)))
        features: Tensor = self.activation(self.output(x))
        return features


class ImageMLP(MLP):
    """The MLP over all pixels and channels of an image as one vector."""

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, ...) of n_inputs values to features (B, n_outputs)."""
        return super().forward(x.flatten(1))


@FEATURIZERS.register("mlp")
def mlp(input_shape: tuple[int, ...], hparams: dict[str, Any]) -> MLP:
    """MLP with as many features as hidden units, over vectors or the pixels of images."""
    if not input_shape:
        raise UsageError(f"featurizer mlp takes vectors and images, not inputs of shape {input_shape}")
    kind = MLP if len(input_shape) == 1 else ImageMLP
    return kind(math.prod(input_shape), int(option(hparams, "mlp_width")), hparams)
