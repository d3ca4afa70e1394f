"""Gradient matching: methods that make the gradients of environments similar."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from domainbed import networks
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Algorithm, Metrics, Minibatch, scalar
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.optimizers import descend
from domainbed.hparams import Hparam, choice, const, log10_uniform


def gradient_spread(gradients: Sequence[Sequence[Tensor]]) -> Tensor:
    """Sum of squared distances of K gradients from their mean; 0-d.

    The mean is treated as a constant: the derivative by it is sum_k (g_k - mean) = 0.

    Args:
        gradients: for each environment, one tensor for each parameter.
    """
    total = torch.zeros((), device=gradients[0][0].device)
    for parts in zip(*gradients, strict=True):
        stacked = torch.stack(parts)
        total = total + (stacked - stacked.detach().mean(0)).square().sum()
    return total


@REGISTRY.register()
class IGA(ERM):
    """Inter-environment gradient alignment (Koyama and Yamaguchi 2020).

    The mean risk plus `penalty` times the summed squared distance of the environments' gradients, by all
    parameters, from their mean.
    """

    FACTS = Facts(
        year=2020,
        paper=(
            "Koyama and Yamaguchi, When is invariance useful in an out-of-distribution generalization "
            "problem?, arXiv 2008.01883"
        ),
        idea="A penalty on the distance of the environments' gradients from their mean",
        time="3",
        memory="2.5 * K",
        cost="Second derivatives, with the graphs of all K forward passes in memory.",
        one_environment="ERM",
        departures=(
            "The mean gradient is that of the K gradients, which upstream computes by one more backward pass."
        ),
    )

    HPARAMS = {"penalty": Hparam(1000, log10_uniform(1, 5), "weight of the penalty", type=float, at_least=0)}
    COMPILABLE = False

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        parameters = self.trained_parameters()
        losses, gradients = [], []
        for x, y in minibatches:
            loss = F.cross_entropy(self.predict(x), y)
            losses.append(loss)
            gradients.append(torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True))
        mean_loss = torch.stack(losses).mean()
        penalty = gradient_spread(gradients)
        self.step(mean_loss + self.hparams["penalty"] * penalty)
        return {"loss": scalar(mean_loss), "penalty": scalar(penalty)}


Operand = float | Mapping[str, Tensor]


class ParamDict(OrderedDict[str, Tensor]):
    """A dictionary of tensors, such as a state dict, with elementwise +, -, * and /.

    The other operand is a number, or a dictionary with at least the keys of this one.
    """

    def _each(self, other: Operand, operation: Callable[[Any, Any], Tensor]) -> ParamDict:
        if isinstance(other, Mapping):
            return ParamDict((key, operation(value, other[key])) for key, value in self.items())
        return ParamDict((key, operation(value, other)) for key, value in self.items())

    def __add__(self, other: Operand) -> ParamDict:
        return self._each(other, operator.add)

    def __sub__(self, other: Operand) -> ParamDict:
        return self._each(other, operator.sub)

    def __mul__(self, other: Operand) -> ParamDict:
        return self._each(other, operator.mul)

    def __truediv__(self, other: Operand) -> ParamDict:
        return self._each(other, operator.truediv)

    def __neg__(self) -> ParamDict:
        return self * -1

    def __rsub__(self, other: float) -> ParamDict:
        return -self + other

    __radd__ = __add__
    __rmul__ = __mul__


@REGISTRY.register()
class Fish(Algorithm):
    """Fish (Shi et al. 2021, algorithm 1).

    Takes one step of the optimizer on each environment in turn, then moves the weights from their initial
    values toward the final ones by a fraction `meta_lr`. Running statistics of batch norms move likewise.
    Adam's moments carry over between updates. The logged `loss` is that of the last environment.

    Draws nothing or, with `upstream_draws`, the initial weights of a new network.
    """

    FACTS = Facts(
        year=2021,
        paper="Shi et al., Gradient matching for domain generalization, arXiv 2104.09937",
        idea=(
            "A step on each environment in turn, then a part of the way: gradients come to have common "
            "directions"
        ),
        memory="3",
        cost="K steps of the optimizer in an update, one after the other.",
        one_environment="ERM, on a part of the way",
        departures=(
            "Copies the weights where upstream builds a new network in each update (`upstream_draws` "
            "repeats its draws); `network_inner.*` in state dicts is ignored. The authors' own code visits "
            "environments in random order."
        ),
    )

    HPARAMS = {
        "meta_lr": Hparam(0.5, choice(0.05, 0.1, 0.5), "fraction of the way to the final weights", above=0)
    }
    SWITCHES = {
        "upstream_draws": Hparam(
            False, const(False), "draw a new network's initial weights at each update, as upstream does"
        )
    }

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.input_shape = input_shape
        self.num_classes = num_classes
        self.network = networks.WholeFish(input_shape, num_classes, hparams)
        self.optimizer = self.optimizer_over(
            self.network.parameters(), lr=hparams["lr"], weight_decay=hparams["weight_decay"]
        )

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        if self.switch("upstream_draws"):
            networks.WholeFish(self.input_shape, self.num_classes, self.hparams)
        initial = ParamDict((name, value.clone()) for name, value in self.network.state_dict().items())
        for x, y in minibatches:
            loss = self._loss(x, y)
            descend(loss, self.optimizer)
        final = ParamDict(self.network.state_dict())
        self.network.load_state_dict(initial + self.hparams["meta_lr"] * (final - initial))
        return {"loss": scalar(loss)}

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.predict(x), y)

    def predict(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401 - torch's
        # Upstream's checkpoints also hold the network as it was before the last interpolation.
        for name in [name for name in state_dict if name.startswith(f"{prefix}network_inner.")]:
            del state_dict[name]
        super()._load_from_state_dict(state_dict, prefix, *args)
