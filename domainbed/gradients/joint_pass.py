"""Gradients of K environments from one forward and one backward pass over all their samples.

Where no layer mixes samples, the gradient by a layer's outputs holds every sample's own part, so that an
environment's gradient by the layer's parameters can be formed from the environment's slice (gradient
surgery specification, D.7). Autograd makes none for the parameters then. A layer's gradients are handed
over as soon as they are known, and need not be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from domainbed.datasets.minibatch import Minibatch, concatenate
from domainbed.gradients.layer_slices import LAYERS, LayerSlices
from domainbed.gradients.parameter_gradients import Held, ParameterGradients

Visit = Callable[[Sequence[int], ParameterGradients], None]
"""Called with the gradients of one parameter, or of several small ones one after the other, and with their
positions; once for each parameter that has any gradient."""


class NotSamplewise(Exception):
    """The network does something with its samples or parameters that one joint pass can't take apart."""


class JointPass:
    """One forward pass over K environments' samples, and then one backward pass.

    Args:
        predict: logits (B, C) of inputs; each sample's must depend on that sample alone.
        minibatches: one an environment.
        parameters: what to differentiate by.
        seeds: of the random numbers for dropout in each environment, as if it had a pass of its own.

    Attributes:
        losses: cross-entropies (K,) of the environments, detached.

    Raises: NotSamplewise.
    """

    def __init__(
        self,
        predict: Callable[[Tensor], Tensor],
        minibatches: Sequence[Minibatch],
        parameters: Sequence[nn.Parameter],
        seeds: Sequence[int],
    ) -> None:
        x, y = concatenate(minibatches)
        sizes = [len(labels) for _, labels in minibatches]
        self._recorder = _Recorder(parameters, sizes, seeds)
        with self._recorder:
            logits = predict(x)
        parts = zip(logits.split(sizes), y.split(sizes), strict=True)
        losses = torch.stack([F.cross_entropy(z, labels) for z, labels in parts])
        self.losses = losses.detach()
        self._total = losses.sum()

    def backward(self, visit: Visit) -> None:
        """Have `visit` called with the environments' gradients; only once."""
        self._recorder.visit = visit
        if self._total.requires_grad:
            self._total.backward()
        self._recorder.visit_small()
        del self._total


class _Recorder(TorchFunctionMode):
    """Runs known layers on detached parameters, with a hook that forms the environments' gradients."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], sizes: Sequence[int], seeds: Sequence[int]
    ) -> None:
        super().__init__()
        self._positions = {id(parameter): i for i, parameter in enumerate(parameters)}
        self._sizes, self._seeds = list(sizes), seeds
        self.visit: Visit | None = None
        self._small: dict[int, Tensor] = {}
        self._generators: list[torch.Generator] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the function returns
        kwargs = kwargs or {}
        if func is F.dropout:
            return self._dropout(*args, **kwargs)
        if func in _MIXING:
            raise NotSamplewise(func.__name__)
        if func in LAYERS:
            return self._layer(LAYERS[func](*args, **kwargs))
        result = func(*args, **kwargs)
        if (
            isinstance(result, Tensor)
            and result.requires_grad
            and any(map(self._is_ours, _leaves(args, kwargs)))
        ):
            raise NotSamplewise(f"a parameter in {func.__name__}")
        return result

    def _is_ours(self, value: object) -> bool:
        return id(value) in self._positions

    def _layer(self, layer: LayerSlices) -> Tensor:
        """Output of a layer; its parameters' gradients are handed over in the backward pass."""
        if layer.inputs.shape[0] != sum(self._sizes) or layer.mixes:
            raise NotSamplewise(type(layer).__name__)
        positions = {}
        for name, parameter in layer.parameters.items():
            if id(parameter) in self._positions:
                # A second use of the same parameter would have to be added before anything looks at it.
                positions[name] = self._positions.pop(id(parameter))
            elif parameter.requires_grad:
                raise NotSamplewise("a parameter used twice, or made from others")
        if not positions:
            return layer.output()

        def form_gradients(gradient: Tensor) -> None:
            with torch.no_grad():
                for name, gradients in layer.gradients(gradient, self._sizes, list(positions)).items():
                    self._hand_over(positions[name], gradients)
            layer.forget()

        # Without a gradient the layer's output has no graph to put a hook on.
        output = layer.output() if layer.inputs.requires_grad else _Rooted.apply(_root(layer.inputs), layer)
        output.register_hook(form_gradients)
        return output

    def _hand_over(self, position: int, gradients: ParameterGradients) -> None:
        assert self.visit is not None
        if not isinstance(gradients, Held) or gradients.matrix.shape[1] > Held.SMALL:
            self.visit([position], gradients)
            return
        # Looking at many small parameters one by one would cost more than their gradients.
        size = gradients.matrix.shape[1] + sum(matrix.shape[1] for matrix in self._small.values())
        if size > Held.SMALL:
            self.visit_small()
        self._small[position] = gradients.matrix

    def visit_small(self) -> None:
        """Hand over what was kept to be handed over together."""
        if self._small and self.visit is not None:
            with torch.no_grad():
                self.visit(list(self._small), Held(torch.cat(list(self._small.values()), 1)))
        self._small = {}

    def _dropout(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """Dropout that draws for each environment what a pass over its samples alone would draw."""
        if not training or p == 0:
            return x
        if not self._generators:
            self._generators = [torch.Generator(x.device).manual_seed(seed) for seed in self._seeds]
        noise = torch.empty_like(x, memory_format=torch.contiguous_format)
        for part, generator in zip(noise.split(self._sizes), self._generators, strict=True):
            part.bernoulli_(1 - p, generator=generator)
        return x * noise.div_(1 - p)


class _Rooted(torch.autograd.Function):
    """A layer's output in a graph that ends there."""

    @staticmethod
    def forward(ctx: Any, root: Tensor, layer: LayerSlices) -> Tensor:  # noqa: ANN401 - torch's
        return layer.output()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:  # noqa: ANN401
        return None, None


def _root(like: Tensor) -> Tensor:
    return torch.zeros((), dtype=like.dtype, device=like.device, requires_grad=True)


def _leaves(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[object]:
    """Arguments, and the members of lists and tuples among them."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, list | tuple):
            yield from value
        else:
            yield value


_MIXING = {F.alpha_dropout, F.feature_alpha_dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.rrelu}
"""Functions that draw random numbers in a way of their own."""
