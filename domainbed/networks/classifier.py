"""Classifiers on top of a featurizer, and the network of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from domainbed.errors import UsageError
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


def start_from_text(classifier: nn.Module, featurizer: nn.Module) -> None:
    """Set the initial weights of a classifier to CLIP's text head, if its featurizer has one.

    Args:
        classifier: a linear layer on the features.
        featurizer: gives its `text_head` away (see `domainbed.networks.clip`); others have none.

    Raises: UsageError if the classifier is not linear, or has another number of classes.
    """
    head = featurizer.take_text_head() if isinstance(featurizer, HasTextHead) else None
    if head is None:
        return
    if not isinstance(classifier, nn.Linear):
        raise UsageError("clip_head text needs a linear classifier; set nonlinear_classifier to false")
    if len(head) != classifier.out_features:
        raise UsageError(
            f"class_names has {len(head)} names, and the dataset {classifier.out_features} classes; give one "
            "name for each class, in the order of the labels"
        )
    with torch.no_grad():
        classifier.weight.copy_(head)
        classifier.bias.zero_()


def check_text_heads(network: nn.Module, name: str) -> None:
    """Raise UsageError, which names the method, if text heads exist and no classifier starts from one."""
    kept = [each.text_head is not None for each in network.modules() if isinstance(each, HasTextHead)]
    if kept and all(kept):
        raise UsageError(
            f"clip_head text has no effect in this run, because {name} builds its classifiers itself; leave "
            "it out, or build them by networks.Classifier and networks.start_from_text"
        )


@runtime_checkable
class HasTextHead(Protocol):
    """A featurizer that may have initial weights for its classifier."""

    text_head: Tensor | None

    def take_text_head(self) -> Tensor | None:
        """Weights (C, n_outputs), which it then has no more; None if the classifier keeps random ones."""


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
        start_from_text(classifier, featurizer)
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
