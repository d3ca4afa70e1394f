"""Gradient matching: the environments' gradients shall be alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, optim

from domainbed import networks
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Algorithm, DeviceScalar, Minibatch, descend, scalar
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.optimizers import adam
from domainbed.algorithms.tensor_dicts import ParamDict
from domainbed.hparams import Hparam, choice, const, log10_uniform


def gradient_spread(gradients: Sequence[Sequence[Tensor]]) -> Tensor:
    """Sum of squared distances of K gradients from their mean; 0-d.

    Args:
        gradients: for each environment, one tensor a parameter.

    The mean is a constant to the derivative: its part is sum_k (g_k - mean) = 0 anyway.
    """
    total = torch.zeros((), device=gradients[0][0].device)
    for parts in zip(*gradients, strict=True):
        stacked = torch.stack(parts)
        total = total + (stacked - stacked.detach().mean(0)).square().sum()
    return total


@REGISTRY.register()
class IGA(ERM):
    """Inter-environment gradient alignment (Koyama and Yamaguchi 2020, arXiv 2008.01883).

    Mean risk plus `penalty` times the summed squared distance of the environments' gradients from their
    mean, taken over all parameters. Needs second derivatives: about three times the arithmetic of an ERM
    step, and the K gradients and the graphs of all K forward passes at once in memory.
    """

    HPARAMS = {"penalty": Hparam(1000, log10_uniform(1, 5), "weight of the penalty", type=float, at_least=0)}
    COMPILABLE = False

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
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


@REGISTRY.register()
class Fish(Algorithm):
    """Fish (Shi et al. 2021, arXiv 2104.09937, algorithm 1).

    One step of Adam on each environment in turn, from whose end point the weights go back to a share
    `meta_lr` of the way; running statistics too. Adam's moments go on from update to update. Costs one
    ERM step and K steps of the optimizer; a copy of the weights during an update. Returns the loss of the
    last environment. Draws: none, or those of a new network's initial weights with `upstream_draws`.
    """

    HPARAMS = {"meta_lr": Hparam(0.5, choice(0.05, 0.1, 0.5), "share of the way that is gone", above=0)}
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
        self.optimizer: optim.Optimizer = adam(
            self.network.parameters(), lr=hparams["lr"], weight_decay=hparams["weight_decay"]
        )

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        if self.switch("upstream_draws"):
            networks.WholeFish(self.input_shape, self.num_classes, self.hparams)
        before = ParamDict((name, value.clone()) for name, value in self.network.state_dict().items())
        for x, y in minibatches:
            loss = self._loss(x, y)
            descend(loss, self.optimizer)
        way = ParamDict(self.network.state_dict()) - before
        self.network.load_state_dict(before + self.hparams["meta_lr"] * way)
        return {"loss": scalar(loss)}

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.predict(x), y)

    def predict(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401 - torch's
        # Upstream's checkpoints also hold the network at the end point of the last update.
        for name in [name for name in state_dict if name.startswith(f"{prefix}network_inner.")]:
            del state_dict[name]
        super()._load_from_state_dict(state_dict, prefix, *args)
