"""The classifier on top of a featurizer."""

from __future__ import annotations

from torch import nn


def Classifier(in_features: int, out_features: int, is_nonlinear: bool = False) -> nn.Module:
    """Features (B, in_features) to logits (B, out_features): one linear layer, or three with ReLUs.

    The nonlinear one halves the width twice.
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
