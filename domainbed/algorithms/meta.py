"""Meta-learning: methods that use the risk after a trial step, or adapt to the current batch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from domainbed import networks
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Metrics, Minibatch, scalar
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.minibatch_pairs import split_meta_train_test
from domainbed.algorithms.optimizers import OptimizerChoice
from domainbed.datasets import by_size
from domainbed.errors import UsageError
from domainbed.hparams import Hparam, Kind, choice, const, log2_int, log10_uniform
from domainbed.networks.stages import changing_buffers

_log = logging.getLogger(__name__)


@REGISTRY.register()
class MLDG(ERM):
    """Meta-learning domain generalization (Li et al. 2017, algorithm 1), first order.

    For each pair of a meta-train and a meta-test environment, takes a trial step of a new optimizer, by
    default Adam, on the meta-train risk. The pair's gradient is that of the meta-train risk at the weights,
    plus beta times that of the meta-test risk after the trial step. As in upstream, the sum is divided by K,
    although there are K - n_meta_test pairs, and the running statistics of batch norms never change.

    If K - 1 is less than `n_meta_test`, K - 1 environments are used for meta-test, with a warning.
    """

    FACTS = Facts(
        year=2017,
        paper="Li et al., Learning to generalize: Meta-learning for domain generalization, arXiv 1710.03463",
        idea="A step on some environments is to lower the risk of others",
        time="2 * (K - 2) / K",
        memory="5",
        cost=(
            "Two forward and backward passes for each of K - `n_meta_test` pairs of environments. The memory "
            "is 4 with a single pair."
        ),
        departures=(
            "The same numbers without copies of the network. `n_meta_test` is lowered to K - 1 (upstream "
            "trains nothing)."
        ),
    )

    MIN_DOMAINS = 2  # one for meta-train and one for meta-test
    HPARAMS = {
        "mldg_beta": Hparam(1.0, log10_uniform(-1, 1), "weight of the meta-test gradient"),
        "n_meta_test": Hparam(2, choice(1, 2), "number of meta-test environments", at_least=1),
    }

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.num_meta_test = min(hparams["n_meta_test"], num_domains - 1)
        if self.num_meta_test < hparams["n_meta_test"]:
            _log.warning(
                "MLDG: n_meta_test is %d with %d source environments; using %d, to keep one for meta-train",
                hparams["n_meta_test"],
                num_domains,
                self.num_meta_test,
            )

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        beta, num_domains = self.hparams["mldg_beta"], len(minibatches)
        parameters = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        total = [torch.zeros_like(parameter) for parameter in parameters.values()]
        objective = torch.zeros((), device=minibatches[0][0].device)

        for (xi, yi), (xj, yj) in split_meta_train_test(minibatches, self.num_meta_test):
            train_loss = self._loss(parameters, xi, yi)
            train_gradients = torch.autograd.grad(
                train_loss, list(parameters.values()), materialize_grads=True
            )
            stepped = self._trial_step(parameters, train_gradients)
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
        """Loss (0-d) of the network with these parameters and with copies of its buffers."""
        buffers = {name: buffer.clone() for name, buffer in changing_buffers(self.network).items()}
        return F.cross_entropy(functional_call(self.network, {**parameters, **buffers}, (x,)), y)

    def _trial_step(self, parameters: Mapping[str, Tensor], gradients: Sequence[Tensor]) -> dict[str, Tensor]:
        """`parameters` after the first step of a new optimizer."""
        lr, weight_decay = self.hparams["lr"], self.hparams["weight_decay"]
        if self.optimizer_choice(self.hparams) == OptimizerChoice():
            rate, pairs = lr * self.rate_factor, zip(parameters.values(), gradients, strict=True)
            values = [_first_adam_step(*pair, rate, weight_decay) for pair in pairs]
            return dict(zip(parameters, values, strict=True))
        copies = {name: nn.Parameter(value.detach().clone()) for name, value in parameters.items()}
        for copied, gradient in zip(copies.values(), gradients, strict=True):
            copied.grad = gradient.clone()  # which the optimizer may change
        self.optimizer_over(copies.values(), lr, weight_decay).step()
        return dict(copies)


def _first_adam_step(parameter: Tensor, gradient: Tensor, lr: float, weight_decay: float) -> Tensor:
    """`parameter` after the first step of a new Adam, whose corrected moments are g and g^2."""
    gradient = gradient + weight_decay * parameter.detach()
    step = lr * gradient / (gradient.abs() + 1e-8)
    stepped: Tensor = (parameter.detach() - step).requires_grad_()
    return stepped


@REGISTRY.register()
class ARM(ERM):
    """Adaptive risk minimisation (Zhang et al. 2020) with a context network (ARM-CML).

    Images have one more input channel, the mean over a group of images of a small network's output. A group
    is `batch_size` consecutive images, so one environment in training, or the whole batch if its size is not
    a multiple of that. As in upstream, the context network is not trained unless `arm_train_context` is set.

    Raises: UsageError for inputs that are not images.
    """

    FACTS = Facts(
        year=2020,
        paper="Zhang et al., Adaptive risk minimization: Learning to adapt to domain shift, arXiv 2007.02931",
        idea="A small network sums up a group of images; its output is one more channel of each image",
        time="1.4",
        cost=(
            "Three 5x5 convolutions with 64 channels at full resolution: 0.4 ERM steps of a ResNet-50, 1 "
            "of a ResNet-18."
        ),
        departures=(
            "The context network is not trained, as upstream, unless `arm_train_context` is set. "
            "Evaluation forms groups within batches of 256 (upstream: 64)."
        ),
    )

    CHANGES_INPUTS = True
    OPTIMISATION = {
        "batch_size": by_size(
            small=Hparam(
                64, log2_int(3, 9), "B, minibatch size of each environment and size of a group", at_least=1
            ),
            large=Hparam(
                8,
                const(8),
                "B, minibatch size of each environment and size of a group",
                at_least=1,
                kind=Kind.SEARCHED,
            ),
        )
    }
    SWITCHES = {
        "arm_train_context": Hparam(False, const(False), "train the context network (upstream does not)")
    }

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        if len(input_shape) != 3:
            raise UsageError(
                f"ARM takes images (channels, height, width), not inputs of shape {tuple(input_shape)}; "
                "choose another algorithm or dataset"
            )
        channels, *size = input_shape
        super().__init__((channels + 1, *size), num_classes, num_domains, hparams)
        self.context_net = networks.ContextNet(input_shape)
        self.support_size = hparams["batch_size"]
        if self.switch("arm_train_context"):
            self.optimizer.add_param_group({"params": list(self.context_net.parameters())})
        else:
            self.context_net.requires_grad_(False)

    def predict(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, C, H, W). They depend on the other images of each group."""
        group_size = self.support_size if len(x) % self.support_size == 0 else len(x)
        context = self.context_net(x).to(x.dtype)
        means = context.unflatten(0, (-1, group_size)).mean(dim=1)
        return super().predict(torch.cat([x, means.repeat_interleave(group_size, dim=0)], dim=1))
