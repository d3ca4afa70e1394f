"""MLP: fully connected layers, for vectors."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from domainbed.errors import UsageError
from domainbed.networks import FEATURIZERS
from domainbed.networks.base import FeaturizerModule
from domainbed.networks.options import dropout_rate, option


class MLP(FeaturizerModule):
    """`mlp_depth` linear layers of `mlp_width` units, each but the last followed by dropout and ReLU.

    Args:
        n_inputs: length of an input.
        n_outputs: number of features.
        hparams: may hold `mlp_width`, `mlp_depth`, `mlp_dropout`.
    """

    def __init__(self, n_inputs: int, n_outputs: int, hparams: dict[str, Any]) -> None:
        super().__init__()
        width = int(option(hparams, "mlp_width"))
        self.input = nn.Linear(n_inputs, width)
        self.dropout = nn.Dropout(dropout_rate("mlp_dropout", float(option(hparams, "mlp_dropout"))))
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


@FEATURIZERS.register("mlp")
def mlp(input_shape: tuple[int, ...], hparams: dict[str, Any]) -> MLP:
    """MLP with as many features as hidden units."""
    if len(input_shape) != 1:
        raise UsageError(f"featurizer mlp takes vectors, not inputs of shape {input_shape}")
    return MLP(input_shape[0], int(option(hparams, "mlp_width")), hparams)
