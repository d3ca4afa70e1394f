"""MLP: fully connected layers, for vectors and small images."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from domainbed.errors import UsageError
from domainbed.hparams import option
from domainbed.networks.base import FeaturizerModule
from domainbed.networks.registry import FEATURIZERS


class MLP(FeaturizerModule):
    """`mlp_depth` linear layers of `mlp_width` units. Dropout and ReLU follow each but the last.

    Args:
        n_inputs: length of an input.
        n_outputs: number of features.
        hparams: optionally `mlp_width`, `mlp_depth` and `mlp_dropout`.
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
        """Features (B, n_outputs) of vectors (B, n_inputs)."""
        for layer in (self.input, *self.hiddens):
            x = F.relu(self.dropout(layer(x)))
        features: Tensor = self.activation(self.output(x))
        return features


class ImageMLP(MLP):
    """The MLP applied to all pixels and channels of an image as one vector."""

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, n_outputs) of images (B, ...) of `n_inputs` values each."""
        return super().forward(x.flatten(1))


@FEATURIZERS.register("mlp")
def mlp(input_shape: tuple[int, ...], hparams: dict[str, Any]) -> MLP:
    """A new MLP with `mlp_width` features, for vectors or the pixels of images."""
    if not input_shape:
        raise UsageError(f"featurizer mlp takes vectors and images, not inputs of shape {input_shape}")
    network_class = MLP if len(input_shape) == 1 else ImageMLP
    return network_class(math.prod(input_shape), int(option(hparams, "mlp_width")), hparams)
