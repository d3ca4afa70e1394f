"""Meta-learning: methods that look at the risk after a trial step."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import DeviceScalar, Minibatch, scalar
from domainbed.algorithms.erm import ERM
from domainbed.errors import UsageError
from domainbed.hparams import Hparam, choice, log10_uniform
from domainbed.lib.pairing import split_meta_train_test

_log = logging.getLogger(__name__)


@REGISTRY.register()
class MLDG(ERM):
    """Learning to generalize (Li et al. 2017, arXiv 1710.03463), first-order version.

    For each meta-training environment, a trial step of a fresh Adam; the update is the gradient there
    plus beta times that of a meta-test environment's risk after the trial step. The divisor is K, though
    there are K - n_meta_test pairs (upstream's). Batch norms keep their running statistics: only the
    stepped networks see data. Needs two backward passes a pair and no copy of the network.
    """

    MIN_DOMAINS = 2  # one to train and one to test
    HPARAMS = {
        "mldg_beta": Hparam(1.0, log10_uniform(-1, 1), "weight of the meta-test gradient"),
        "n_meta_test": Hparam(2, choice(1, 2), "number of meta-test environments", at_least=1),
    }

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        if hparams["n_meta_test"] < 1:
            raise UsageError(
                f"MLDG needs n_meta_test of 1 or more environments, not {hparams['n_meta_test']}"
            )
        self.num_meta_test = min(hparams["n_meta_test"], num_domains - 1)
        if self.num_meta_test < hparams["n_meta_test"]:
            _log.warning(
                "MLDG: n_meta_test is %d with %d source environments; %d is used, to leave one to train on",
                *(hparams["n_meta_test"], num_domains, self.num_meta_test),
            )

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        beta, num_domains = self.hparams["mldg_beta"], len(minibatches)
        parameters = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        total = [torch.zeros_like(parameter) for parameter in parameters.values()]
        objective = torch.zeros((), device=minibatches[0][0].device)

        for (xi, yi), (xj, yj) in split_meta_train_test(minibatches, self.num_meta_test):
            train_loss = self._loss(parameters, xi, yi)
            train_gradients = torch.autograd.grad(
                train_loss, list(parameters.values()), materialize_grads=True
            )
            stepped = {
                name: self._trial_step(parameter, gradient)
                for (name, parameter), gradient in zip(parameters.items(), train_gradients, strict=True)
            }
            test_loss = self._loss(stepped, xj, yj)
            test_gradients = torch.autograd.grad(test_loss, list(stepped.values()), materialize_grads=True)
            torch._foreach_add_(total, train_gradients, alpha=1 / num_domains)
            torch._foreach_add_(total, test_gradients, alpha=beta / num_domains)
            objective = objective + train_loss.detach() + beta * test_loss.detach()

        self.optimizer.zero_grad()
        for parameter, gradient in zip(parameters.values(), total, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        return {"loss": scalar(objective / num_domains)}

    def _loss(self, parameters: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        """Loss of the network with these parameters, on copies of its buffers."""
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        return F.cross_entropy(functional_call(self.network, {**parameters, **buffers}, (x,)), y)

    def _trial_step(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        """`parameter` after the first step of a fresh Adam: its moments, corrected, are g and g^2."""
        gradient = gradient + self.hparams["weight_decay"] * parameter.detach()
        step = self.hparams["lr"] * gradient / (gradient.abs() + 1e-8)
        stepped: Tensor = (parameter.detach() - step).requires_grad_()
        return stepped
