"""The network behind an algorithm's predictions, as a measurement needs it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from domainbed.algorithms.base import Algorithm
from domainbed_gs.curvature.network import Logits, ParameterVector, trained_names


@dataclass(frozen=True)
class MeasuredNetwork:
    """A network in evaluation mode, whose trainable parameters are those that its predictions depend on.

    Attributes:
        network: maps inputs to logits (B, C).
        parameters: its trainable parameters.
        classifier: names of the classifier's layers that have some; empty if the algorithm has no
            `classifier`.
    """

    network: nn.Module
    parameters: ParameterVector
    classifier: frozenset[str]

    @property
    def spans(self) -> dict[str, tuple[int, int]]:
        """Name of each layer -> its first component among all parameters, and the one after its last."""
        found: dict[str, tuple[int, int]] = {}
        start = 0
        for name, view in self.parameters.views(self.parameters.values).items():
            layer, stop = name.rpartition(".")[0], start + view.numel()
            found[layer] = (found.get(layer, (start, stop))[0], stop)
            start = stop
        return found


@contextlib.contextmanager
def measured_network(algorithm: Algorithm, x: Tensor, shared: bool) -> Iterator[MeasuredNetwork]:
    """The network of `algorithm`, which is as before afterwards.

    Args:
        algorithm: the algorithm.
        x: some inputs (B, ...).
        shared: whether the parameters may become views of one vector, which saves memory. They remain so.

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
        classifier = _layers_of_classifier(algorithm, network, names)
        vector = ParameterVector(network, names) if shared else _copied_parameters(network, names)
        yield MeasuredNetwork(network, vector, classifier)
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for module, training in modes.items():
            module.training = training


def _copied_parameters(network: nn.Module, names: list[str]) -> ParameterVector:
    """A vector with the values of the parameters, which stay where they are in memory."""
    parameters = [network.get_parameter(name) for name in names]
    own = [parameter.data for parameter in parameters]
    vector = ParameterVector(network, names)
    for parameter, data in zip(parameters, own, strict=True):
        parameter.data = data
    return vector


def _layers_of_classifier(algorithm: Algorithm, network: nn.Module, names: list[str]) -> frozenset[str]:
    classifier = getattr(algorithm, "classifier", None)
    if not isinstance(classifier, nn.Module):
        return frozenset()
    layers = {*classifier.modules()}
    own = {name for name, module in network.named_modules() if module in layers}
    return frozenset(own & {name.rpartition(".")[0] for name in names})
