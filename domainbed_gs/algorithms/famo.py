"""FAMO (Liu et al. 2023, "FAMO: Fast adaptive multitask optimization")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn, optim

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Minibatch
from domainbed.algorithms.environments import environment_losses
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.loss_weights import LossWeightsMethod
from domainbed.algorithms.optimizers import adam
from domainbed.hparams import Hparam, const, log10_uniform

_EPS = 1e-8


@REGISTRY.register()
class FAMO(LossWeightsMethod):
    """FAMO (Liu et al. 2023, algorithm 1): environments whose losses fall slowly gain weight.

    With z = softmax(xi), D_k = L_k - `famo_min_loss` + 1e-8 and 1/C = sum_k z_k / D_k, the number to descend
    is C sum_k z_k log D_k with C and z constant: the weights C z_k / D_k add up to 1. After the optimizer's
    step a second forward pass over the same minibatch gives the losses L'_k, and xi descends

        h_k = z_k (delta_k - sum_l z_l delta_l),  delta_k = log D_k - log D'_k,

    with step size `famo_lr` and coupled decay `famo_gamma`, by Adam as in the authors' code or by plain
    descent as in the paper's box. The number itself says nothing about progress. A loss below
    `famo_min_loss` has no logarithm, and training fails.

    The second pass has the dropout masks of the first and leaves batch norms' running statistics alone, so
    that delta is what the step changed. `famo_second_pass` "fresh" draws new masks, and updates the
    statistics again.

    Attributes:
        logits: xi (K,).
    """

    FACTS = Facts(
        year=2023,
        paper="Liu et al., FAMO: Fast adaptive multitask optimization, NeurIPS, arXiv 2306.03792",
        idea="Environments whose losses fall slowly gain weight",
        time="4 / 3",
        cost="A forward pass after the step.",
        one_environment="ERM",
        departures=(
            "The second pass has the dropout masks of the first, and leaves batch norms' statistics alone "
            "(`famo_second_pass` fresh is the authors' way). The network's gradient is not clipped (their "
            "code: to length 1)."
        ),
    )

    DISTRIBUTED = True
    FIXED_RATES = ("logits_optimizer",)
    HPARAMS = {
        "famo_lr": Hparam(0.025, log10_uniform(-2.5, -1), "step size of the environments' logits", above=0),
        "famo_gamma": Hparam(1e-3, log10_uniform(-4, -2), "decay of the environments' logits", at_least=0),
        "famo_min_loss": Hparam(0.0, const(0.0), "less than any loss will be"),
        "famo_optimizer": Hparam(
            "adam", const("adam"), "of the logits: adam or plain (descent)", choices=("adam", "plain")
        ),
        "famo_second_pass": Hparam(
            "same",
            const("same"),
            "dropout masks of the second pass: same, or fresh with batch norms' statistics",
            choices=("same", "fresh"),
        ),
    }

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.logits = nn.Parameter(torch.zeros(num_domains))
        lr, decay = hparams["famo_lr"], hparams["famo_gamma"]
        self.logits_optimizer: optim.Optimizer
        if hparams["famo_optimizer"] == "adam":
            self.logits_optimizer = adam([self.logits], lr, decay)
        else:
            self.logits_optimizer = optim.SGD([self.logits], lr, weight_decay=decay)

    def scalarize(self, losses: Tensor) -> Tensor:
        z, distances = self.logits.detach().softmax(0), self.distances(losses)
        c = 1 / (z / distances.detach()).sum()
        return c * (z * distances.log()).sum()

    def distances(self, losses: Tensor) -> Tensor:
        """D (K,): how far the losses (K,) are above their lower bound."""
        bound: float = self.hparams["famo_min_loss"]
        return losses - bound + _EPS

    @torch.no_grad()
    def finish(self, minibatches: Sequence[Minibatch], losses: Tensor) -> None:
        if self.hparams["famo_second_pass"] == "fresh":
            fresh = environment_losses(self.joint_logits(minibatches), minibatches)
            self.learn(losses, self.all_losses(fresh))
        else:
            self.learn(losses, self.losses_again(minibatches))

    def learn(self, before: Tensor, after: Tensor) -> None:
        """One step of the logits, given the losses (K,) before and after the network's step."""
        delta = self.distances(before).log() - self.distances(after).log()
        z = self.logits.softmax(0)
        self.logits.grad = z * (delta - (z * delta).sum())
        self.logits_optimizer.step()
