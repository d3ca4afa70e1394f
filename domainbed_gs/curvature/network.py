"""The trained parameters behind an algorithm's logits, as one vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.func import functional_call

from domainbed.algorithms.base import Algorithm
from domainbed.errors import UsageError


class Logits(nn.Module):
    """The logits of an algorithm, as a module whose `forward` is `predict`."""

    def __init__(self, algorithm: Algorithm) -> None:
        super().__init__()
        self.algorithm = algorithm

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of inputs (B, *input_shape)."""
        logits: Tensor = self.algorithm.predict(x)
        return logits


def trained_names(network: nn.Module, x: Tensor) -> list[str]:
    """Names of the parameters of `network` that its outputs depend on and that are not frozen.

    Args:
        network: in evaluation mode.
        x: some inputs (B, *input_shape).

    Raises: UsageError if the outputs cannot be differentiated, or depend on no such parameter.
    """
    with torch.enable_grad():
        used = _leaves(network(x))
    names = [name for name, parameter in network.named_parameters() if id(parameter) in used]
    if not names:
        raise UsageError(
            "the model's predictions depend on no trained parameter in a way that can be differentiated, so "
            "there is no gradient to measure; choose another model"
        )
    return names


def _leaves(output: Tensor) -> set[int]:
    """ids of the leaf tensors in the graph of `output`."""
    leaves: set[int] = set()
    visited: set[Node] = set()
    waiting = [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            leaves.add(id(variable))
        waiting += [following for following, _ in node.next_functions]
    return leaves


class ParameterVector:
    """Some parameters of a network as one vector (P,). They become views of it, so memory does not grow.

    Args:
        network: the network.
        names: names of the parameters; all have one dtype and device.

    Attributes:
        names: as given.
        values: (P,).
    """

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        parameters = [network.get_parameter(name) for name in names]
        self.names = list(names)
        self._network = network
        self._places = _places(network, self.names)
        self._shapes = [parameter.shape for parameter in parameters]
        self._sizes = [parameter.numel() for parameter in parameters]
        self.values = torch.cat([parameter.detach().flatten() for parameter in parameters])
        for parameter, view in zip(parameters, self.views(self.values).values(), strict=True):
            parameter.data = view

    def __len__(self) -> int:
        return len(self.values)

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """Views of `vector` (P,) in the parameters' shapes, by name."""
        parts = zip(self.names, vector.split(self._sizes), self._shapes, strict=True)
        return {name: part.view(shape) for name, part, shape in parts}

    def outputs(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Outputs of the network for inputs `x` (B, ...) with other values of the parameters, by name."""
        everywhere = {place: parameters[name] for name, own in self._places.items() for place in own}
        # With tie_weights, a module that has two names would keep the other values.
        found: Tensor = functional_call(self._network, everywhere, (x,), tie_weights=False)
        return found


def _places(network: nn.Module, names: Sequence[str]) -> dict[str, list[str]]:
    """For each parameter, a name for each module that has it: several if modules share it."""
    modules = dict(network.named_modules(remove_duplicate=False))
    found: dict[str, dict[tuple[int, str], str]] = {name: {} for name in names}
    names_by_id = {id(network.get_parameter(name)): name for name in names}
    for place, parameter in network.named_parameters(remove_duplicate=False):
        name = names_by_id.get(id(parameter))
        if name is not None:
            owner, _, own = place.rpartition(".")
            found[name].setdefault((id(modules[owner]), own), place)
    return {name: list(places.values()) for name, places in found.items()}
