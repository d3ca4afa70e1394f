"""Losses as functions of a vector of parameters, with gradients and Hessian-vector products.

Gradients and products are added to a vector of the caller, so that few vectors of P numbers exist at once.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from domainbed.algorithms.base import Minibatch
from domainbed.seeds import Purpose, counter_seed
from domainbed_gs.curvature import layerwise
from domainbed_gs.curvature.network import ParameterVector

MOST_SAMPLES = 256
"""Samples in one pass at most."""

LARGE = 2**24
"""Number of parameters from which on gradients are made layer by layer, if the network allows it."""

_NUMBERS_ON_CPU, _NUMBERS_OF_LARGE, _NUMBERS_ELSEWHERE = 2**21, 3 * 2**17, 2**23
"""Numbers in the inputs of one pass at most: 13, 2 and 55 images of 224 pixels. Those on the CPU are few, and
fewest for a large network, to keep within 1.5 GB for AlexNet."""


class Loss(Protocol):
    """A twice differentiable function of P parameters."""

    def value(self, parameters: Tensor) -> float:
        """The loss at `parameters` (P,)."""

    def add_gradient(self, parameters: Tensor, out: Tensor, factor: float = 1.0) -> None:
        """Add `factor` times the gradient at `parameters` (P,) to `out` (P,)."""

    def add_hessian_product(
        self, parameters: Tensor, vector: Tensor, out: Tensor, factor: float = 1.0
    ) -> None:
        """Add `factor` times the Hessian at `parameters` (P,) times `vector` (P,) to `out` (P,)."""


def gradient(loss: Loss, parameters: Tensor) -> Tensor:
    """The gradient (P,) of `loss` at `parameters` (P,)."""
    out = torch.zeros_like(parameters)
    loss.add_gradient(parameters, out)
    return out


def hessian_product(loss: Loss, parameters: Tensor, vector: Tensor) -> Tensor:
    """The Hessian of `loss` at `parameters` (P,) times `vector` (P,)."""
    out = torch.zeros_like(parameters)
    loss.add_hessian_product(parameters, vector, out)
    return out


class SampleLoss:
    """Mean cross-entropy of a network on fixed samples; implements `Loss`.

    Args:
        network: maps inputs to logits (B, C). It stays in its mode, which should be that of evaluation.
        parameters: the parameters that the loss is a function of.
        x: inputs (N, ...), at least one.
        y: int64 labels (N,).
        chunk: number of samples in one pass; by default as many as take little memory.
        by_layers: whether gradients are made layer by layer, which takes less memory and more time; by
            default if there are `LARGE` parameters and the network allows it.
    """

    def __init__(
        self,
        network: nn.Module,
        parameters: ParameterVector,
        x: Tensor,
        y: Tensor,
        chunk: int | None = None,
        by_layers: bool | None = None,
    ) -> None:
        self._network = network
        self._parameters = parameters
        chunk = chunk or _chunk(x, len(parameters))
        self._chunks = list(zip(x.split(chunk), y.split(chunk), strict=True))
        self._count = len(y)
        if by_layers is None:
            by_layers = len(parameters) >= LARGE and layerwise.is_separable(
                network, parameters.names, x[:1], y[:1]
            )
        self._by_layers = by_layers

    def value(self, parameters: Tensor) -> float:
        """The loss at `parameters` (P,), summed over samples in float64."""
        views = self._parameters.views(parameters)
        total = torch.zeros((), dtype=torch.float64, device=parameters.device)
        with torch.no_grad():
            for x, y in self._with_same_draws():
                logits = self._parameters.outputs(views, x)
                total += F.cross_entropy(logits, y, reduction="none").double().sum()
        return float(total) / self._count

    def add_gradient(self, parameters: Tensor, out: Tensor, factor: float = 1.0) -> None:
        """Add `factor` times the gradient at `parameters` (P,) to `out` (P,)."""
        views, into = self._parameters.views(parameters), self._parameters.views(out)
        for x, y in self._with_same_draws():
            if self._by_layers:
                scale = factor / self._count
                layerwise.add_gradient(self._network, self._parameters, parameters, x, y, into, scale)
                continue
            found = grad(self._sum(x, y))(views)
            for name, part in into.items():
                part.add_(found.pop(name), alpha=factor / self._count)

    def add_hessian_product(
        self, parameters: Tensor, vector: Tensor, out: Tensor, factor: float = 1.0
    ) -> None:
        """Add `factor` times the Hessian at `parameters` (P,) times `vector` (P,) to `out` (P,)."""
        views, into = self._parameters.views(parameters), self._parameters.views(out)
        directions = self._parameters.views(vector)
        _load_forward_derivatives()
        for x, y in self._with_same_draws():
            if self._by_layers:
                scale = factor / self._count
                layerwise.add_hessian_product(
                    self._network, self._parameters, parameters, directions, x, y, into, scale
                )
                continue
            # torch's fused attention has no forward derivative.
            with sdpa_kernel(SDPBackend.MATH):
                found: dict[str, Tensor] = jvp(grad(self._sum(x, y)), (views,), (directions,))[1]
            for name, part in into.items():
                part.add_(found.pop(name), alpha=factor / self._count)

    def _with_same_draws(self) -> Iterator[Minibatch]:
        """The samples of each pass, with torch's generators in the same state at each visit.

        Few algorithms draw in `predict`; without this, their loss would not be a function.
        """
        for number, (x, y) in enumerate(self._chunks):
            with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
                torch.manual_seed(counter_seed(Purpose.PREDICTION, number))
                yield x, y

    def _sum(self, x: Tensor, y: Tensor) -> Callable[[dict[str, Tensor]], Tensor]:
        """The sum of the samples' losses as a function of the parameters by name."""

        def of(parameters: dict[str, Tensor]) -> Tensor:
            return F.cross_entropy(self._parameters.outputs(parameters, x), y, reduction="sum")

        return of


def _chunk(x: Tensor, parameters: int) -> int:
    """Number of samples in one pass."""
    most = _NUMBERS_ELSEWHERE
    if x.device.type == "cpu":
        most = _NUMBERS_OF_LARGE if parameters >= LARGE else _NUMBERS_ON_CPU
    return min(MOST_SAMPLES, max(1, most // max(1, x[0].numel())))


@functools.cache
def _load_forward_derivatives() -> None:
    """Compute a first forward derivative, for which torch 2.15 loads code that it warns of itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        one = torch.ones(1)
        jvp(torch.exp, (one,), (one,))


class MeanLoss:
    """The mean of several losses, such as those of the source environments; implements `Loss`."""

    def __init__(self, losses: Sequence[Loss]) -> None:
        self._losses = losses

    def value(self, parameters: Tensor) -> float:
        """The mean at `parameters` (P,)."""
        return sum(loss.value(parameters) for loss in self._losses) / len(self._losses)

    def add_gradient(self, parameters: Tensor, out: Tensor, factor: float = 1.0) -> None:
        """Add `factor` times the gradient at `parameters` (P,) to `out` (P,)."""
        for loss in self._losses:
            loss.add_gradient(parameters, out, factor / len(self._losses))

    def add_hessian_product(
        self, parameters: Tensor, vector: Tensor, out: Tensor, factor: float = 1.0
    ) -> None:
        """Add `factor` times the Hessian at `parameters` (P,) times `vector` (P,) to `out` (P,)."""
        for loss in self._losses:
            loss.add_hessian_product(parameters, vector, out, factor / len(self._losses))
