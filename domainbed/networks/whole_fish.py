"""Featurizer and classifier in one, as Fish has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from domainbed.networks.classifier import Classifier
from domainbed.networks.featurizer import Featurizer


class WholeFish(nn.Module):
    """Maps inputs (B, *input_shape) to logits (B, num_classes).

    Args:
        input_shape: shape of one input.
        num_classes: number of classes.
        hparams: those of the featurizer, and `nonlinear_classifier`.
        weights: a state dict to start from; None for the initial weights.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        hparams: dict[str, Any],
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        featurizer = Featurizer(input_shape, hparams)
        classifier = Classifier(featurizer.n_outputs, num_classes, hparams["nonlinear_classifier"])
        self.net = nn.Sequential(featurizer, classifier)
        if weights is not None:
            self.reset_weights(weights)

    def reset_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Copy a state dict into the network."""
        self.load_state_dict(weights)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (B, *input_shape) to logits (B, num_classes)."""
        logits: Tensor = self.net(x)
        return logits
