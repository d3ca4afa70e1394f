"""The network behind an algorithm's predictions, as a measurement needs it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from domainbed.algorithms.base import Algorithm
from domainbed.errors import UsageError
from domainbed_gs.curvature.network import Logits, ParameterVector, trained_names

ROUNDING = 1e-3
"""Share of the largest logit by which rounding may change logits."""


@dataclass(frozen=True)
class MeasuredNetwork:
    """A network in evaluation mode, whose trainable parameters are those that its predictions depend on.

    Attributes:
        network: maps inputs to logits (B, C).
        names: names of its trainable parameters.
        classifier: names of the classifier's layers that have some; empty if the algorithm has no
            `classifier`.
        shared: whether parameters may become views of a vector, which saves memory. They remain so.
    """

    network: nn.Module
    names: Sequence[str]
    classifier: frozenset[str]
    shared: bool

    @cached_property
    def layers(self) -> dict[str, list[str]]:
        """Name of each layer -> names of its trainable parameters."""
        found: dict[str, list[str]] = {}
        for name in self.names:
            found.setdefault(name.rpartition(".")[0], []).append(name)
        return found

    def count(self, layers: Iterable[str]) -> int:
        """Number of trainable parameters in the named layers."""
        return sum(
            self.network.get_parameter(name).numel() for layer in layers for name in self.layers[layer]
        )

    @contextlib.contextmanager
    def only(self, layers: Iterable[str]) -> Iterator[ParameterVector]:
        """Within it, only parameters of the named layers are trainable; yields their vector."""
        names = [name for layer in layers for name in self.layers[layer]]
        own = [self.network.get_parameter(name) for name in names]
        others = [self.network.get_parameter(name) for name in {*self.names} - {*names}]
        places = [parameter.data for parameter in own] if not self.shared else []
        for parameter in others:
            parameter.requires_grad_(False)
        try:
            vector = ParameterVector(self.network, names)
            for parameter, place in zip(own, places, strict=False):
                parameter.data = place
            yield vector
        finally:
            for parameter in others:
                parameter.requires_grad_(True)


@contextlib.contextmanager
def measured_network(algorithm: Algorithm, x: Tensor, shared: bool) -> Iterator[MeasuredNetwork]:
    """The network of `algorithm`, which is as before afterwards.

    Args:
        algorithm: the algorithm.
        x: some inputs (B, ...).
        shared: as the attribute of `MeasuredNetwork`.

    Raises: UsageError if the predictions depend on no trained parameter.
    """
    network = Logits(algorithm)
    modes = {module: module.training for module in network.modules()}
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.eval()
    try:
        names = trained_names(network, x)
        chosen = {network.get_parameter(name) for name in names}
        for parameter in trainable:
            parameter.requires_grad_(parameter in chosen)
        yield MeasuredNetwork(network, names, _layers_of_classifier(algorithm, network, names), shared)
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for module, training in modes.items():
            module.training = training


def _layers_of_classifier(algorithm: Algorithm, network: nn.Module, names: list[str]) -> frozenset[str]:
    classifier = getattr(algorithm, "classifier", None)
    if not isinstance(classifier, nn.Module):
        return frozenset()
    layers = {*classifier.modules()}
    own = {name for name, module in network.named_modules() if module in layers}
    return frozenset(own & {name.rpartition(".")[0] for name in names})


def check_independent(network: nn.Module, x: Tensor) -> None:
    """Check that the logits of a sample depend on that sample alone.

    Args:
        network: maps inputs to logits (B, C).
        x: some inputs (B, ...), at least two.

    Raises: UsageError.
    """
    with torch.no_grad():
        together = network(x)
        alone = torch.cat([network(each) for each in x.split(1)])
    scale = float(together.abs().max())
    if not torch.allclose(together, alone, rtol=0, atol=ROUNDING * scale, equal_nan=True):
        raise UsageError(
            "predictions for a sample depend on the other samples of its minibatch, or on random numbers, "
            "so samples have no gradients of their own"
        )
