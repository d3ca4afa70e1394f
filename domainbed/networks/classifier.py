"""Classifiers on top of a featurizer, and the network of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from domainbed.networks.featurizer import Featurizer


def Classifier(in_features: int, out_features: int, is_nonlinear: bool = False) -> nn.Module:
    """A classifier from features (B, in_features) to logits (B, out_features).

    One linear layer or, if `is_nonlinear`, three with ReLUs, each of the first two halving the width.
    """
    if not is_nonlinear:
        return nn.Linear(in_features, out_features)
    return nn.Sequential(
        nn.Linear(in_features, in_features // 2),
        nn.ReLU(),
        nn.Linear(in_features // 2, in_features // 4),
        nn.ReLU(),
        nn.Linear(in_features // 4, out_features),
    )


class WholeFish(nn.Module):
    """Featurizer and classifier in one network, as Fish trains it.

    Args:
        input_shape: shape of one input.
        num_classes: number of classes.
        hparams: hyper-parameters of the featurizer, and `nonlinear_classifier`.
        weights: initial state dict; random weights if None.
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
        """Copy the state dict `weights` into the network."""
        self.load_state_dict(weights)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of inputs (B, *input_shape)."""
        logits: Tensor = self.net(x)
        return logits
