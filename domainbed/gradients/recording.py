"""What parameter gradients are made of: the input of each layer, and the gradient by its output.

Where no layer mixes samples, row i of the gradient by a layer's output is that of sample i's own loss. So the
gradient of any group of samples by the layer's parameters can be formed from their rows, and autograd
need not make one for the parameters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd


class NotSeparable(Exception):
    """The parameter gradients of a network cannot be formed sample by sample; the message says why."""


@dataclass(frozen=True)
class LayerPass:
    """One layer in one forward and backward pass over N samples.

    Attributes:
        layer: the module; it has no submodules, or is a batch norm with its activation.
        inputs: (N, ...).
        gradients: gradient of the loss by the layer's output (N, ...).
    """

    layer: nn.Module
    inputs: Tensor
    gradients: Tensor

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The layer's trainable parameters by name."""
        return _trainable(self.layer)


class Recording:
    """Records the layers with trainable parameters of `network` during one forward pass.

        with Recording(network) as recording:
            logits = network(x)
        passes = recording.backward(loss_of(logits))

    Raises:
        NotSeparable: a batch norm mixes samples, layers share a parameter, or a parameter belongs to a module
            with submodules that is no batch norm with its activation. In the forward pass: a layer does not
            map one tensor to one tensor, or is called twice.
    """

    def __init__(self, network: nn.Module) -> None:
        self._layers = _layers(network)
        self._inputs: dict[str, Tensor] = {}
        self._edges: dict[str, GradientEdge] = {}

    def __enter__(self) -> Recording:
        self._handles = [
            layer.register_forward_hook(partial(self._record, name)) for name, layer in self._layers.items()
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _record(self, name: str, layer: nn.Module, args: tuple[object, ...], output: object) -> None:
        if name in self._edges:
            raise NotSeparable(f"layer {name} ({type(layer).__name__}) is called twice")
        if len(args) != 1 or not isinstance(args[0], Tensor) or not isinstance(output, Tensor):
            raise NotSeparable(f"layer {name} ({type(layer).__name__}) does not map one tensor to one tensor")
        self._inputs[name] = args[0]
        # The edge, not the output: a function after the layer may change the output in place (ReLU does).
        self._edges[name] = get_gradient_edge(output)

    def check_parameter_use(self, loss: Tensor) -> None:
        """Raise `NotSeparable` unless each trainable parameter is used by its own layer only.

        Walks the graph of `loss`, so call it once for a network and not in every update.
        """
        unused = [name for name in self._layers if name not in self._edges]
        if unused:
            raise NotSeparable(f"layer {unused[0]} has no part in the forward pass")
        uses = _uses_of_leaves(loss)
        for name, layer in self._layers.items():
            parameters = _trainable(layer)
            dtype = next(iter(parameters.values())).dtype
            alone = _uses_of_leaves(layer.forward(self._inputs[name][:1].detach().to(dtype)))
            for own, parameter in parameters.items():
                if uses[id(parameter)] != alone[id(parameter)]:
                    raise NotSeparable(f"parameter {name}.{own} is used outside of its layer")

    def backward(
        self, loss: Tensor, keep_graph: bool = False, differentiable: bool = False
    ) -> dict[str, LayerPass]:
        """One backward pass from `loss` to the layers' outputs; name of each layer called -> its pass.

        Args:
            loss: 0-d. For per-sample gradients of the samples' own losses it must be their sum.
            keep_graph: whether the graph of `loss` can be differentiated again.
            differentiable: whether inputs and gradients stay in the graph; implies `keep_graph`.
        """
        gradients = torch.autograd.grad(
            loss,
            list(self._edges.values()),
            create_graph=differentiable,
            retain_graph=keep_graph or differentiable,
            materialize_grads=True,
        )
        return {
            name: LayerPass(
                self._layers[name],
                self._inputs[name] if differentiable else self._inputs[name].detach(),
                gradient,
            )
            for name, gradient in zip(self._edges, gradients, strict=True)
        }


def _trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable parameters of `module` itself by name, not those of its submodules."""
    own = module.named_parameters(recurse=False)
    return {name: parameter for name, parameter in own if parameter.requires_grad}


def _layers(network: nn.Module) -> dict[str, nn.Module]:
    """The modules that have trainable parameters of their own, by name."""
    seen: set[int] = set()
    layers = {}
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            raise NotSeparable(
                f"batch norm {name} mixes the samples of a minibatch; use evaluation mode, or freeze_bn"
            )
        parameters = _trainable(module)
        if not parameters:
            continue
        if any(True for _ in module.children()) and not _is_norm_with_activation(module):
            raise NotSeparable(
                f"module {name} ({type(module).__name__}) has parameters beside those of its submodules"
            )
        if not seen.isdisjoint(map(id, parameters.values())):
            raise NotSeparable(f"layer {name} shares a parameter with another layer")
        seen.update(map(id, parameters.values()))
        layers[name] = module
    return layers


def _is_norm_with_activation(module: nn.Module) -> bool:
    """Whether the module is a batch norm that calls an activation, such as timm's `BatchNormAct2d`.

    Its submodules have no parameters and draw no random numbers: they are in evaluation mode, and none is a
    dropout, which `dropout_by_environment` replaces.
    """
    below = [each for each in module.modules() if each is not module]
    own = len(list(module.parameters(recurse=False))) == len(list(module.parameters()))
    return (
        isinstance(module, _BatchNorm)
        and own
        and not any(each.training or isinstance(each, _DropoutNd) for each in below)
    )


def _uses_of_leaves(output: Tensor) -> Counter[int]:
    """id of each leaf tensor -> number of operations in the graph of `output` that take it as an input."""
    uses: Counter[int] = Counter()
    visited: set[Node] = set()
    waiting = [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        for following, _ in node.next_functions:
            variable: Any = getattr(following, "variable", None)
            if variable is None:
                waiting.append(following)
            else:
                uses[id(variable)] += 1
    return uses


@contextmanager
def dropout_by_environment(network: nn.Module, sizes: Sequence[int], seeds: Sequence[int]) -> Iterator[None]:
    """Within it, dropout layers draw for each environment what a pass over its samples alone would draw.

    Args:
        network: its `nn.Dropout` layers are meant; other random layers draw for all samples at once.
        sizes: number of samples of each environment; inputs hold one environment after the other.
        seeds: seed of each environment's draws.
    """
    generators: list[torch.Generator] = []

    def drop(layer: nn.Dropout, args: tuple[Tensor]) -> tuple[Tensor]:
        (x,) = args
        if not generators:
            generators.extend(torch.Generator(x.device).manual_seed(seed) for seed in seeds)
        keep = torch.empty_like(x, memory_format=torch.contiguous_format)
        for part, generator in zip(keep.split(list(sizes)), generators, strict=True):
            part.bernoulli_(1 - layer.p, generator=generator)
        return (x * keep.div_(1 - layer.p),)

    layers = [m for m in network.modules() if type(m) is nn.Dropout and m.training and m.p > 0]
    handles = [layer.register_forward_pre_hook(drop) for layer in layers]
    for layer in layers:
        layer.training = False  # the layer itself then returns what it is given
    try:
        yield
    finally:
        for layer, handle in zip(layers, handles, strict=True):
            layer.training = True
            handle.remove()
