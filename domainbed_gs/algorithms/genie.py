"""GENIE (Cho, Kim and Kim, ICML 2025)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn, optim

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.optimizers import CHOICE
from domainbed.hparams import Hparam, const, log10_uniform, uniform
from domainbed.seeds import counter_seed, global_seed

_EPS = 1e-8
_MOST_CERTAIN = 10.0  # the inverse variance is cut there


def relative_variance(beta: float, t: int) -> float:
    """rho: the variance of a moving average of t gradients, relative to that of one gradient."""
    return (1 - beta) * (1 + beta**t) / ((1 + beta) * (1 - beta**t))


def preconditioned(
    mean: Tensor, square: Tensor, t: int, beta: float, gain: str = "code"
) -> tuple[Tensor, Tensor]:
    """The gradient that GENIE trusts, and how far it does, both shaped as the parameter.

    Args:
        mean: moving average of t gradients, not corrected for its start at 0.
        square: that of their squares.
        t: number of gradients, at least 1.
        beta: weight of the past in both averages.
        gain: code or paper; see `GENIE`.

    Returns: m q, where m is the corrected mean and q in [0, 1] its shrinkage; tau in [0, 1].
    """
    total, rho = 1 - beta**t, relative_variance(beta, t)
    average = mean / total
    if t == 1:  # one gradient has no variance, and 0/0 would be left to rounding
        variance = torch.full_like(mean, _EPS)
    else:
        variance = (square / total - average.square()) / (1 - rho)
        variance = torch.where(variance > 0, variance, _EPS)
    tau = variance.reciprocal().clamp_max(_MOST_CERTAIN).tanh()
    if gain == "paper":
        shrinkage = mean.square() / square.clamp_min(torch.finfo(square.dtype).tiny)
    else:
        shrinkage = 1 / (1 + rho * variance / (average.square() + _EPS))
    return average * shrinkage, tau


class GenieOptimizer(optim.Optimizer):
    """GENIE's optimizer. Its draws depend on the seed, the parameter's number and its number of steps alone.

    Args:
        parameters: what to optimise.
        lr: step size eta.
        beta: weight of the past in the moving averages.
        drop: probability that a component makes no step.
        noise: whether uncertain components get noise.
        gain: code or paper.
        weight_decay: coupled.
        seed: of the noise and the masks.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        beta: float = 0.95,
        drop: float = 0.4,
        noise: bool = True,
        gain: str = "code",
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        defaults = {"lr": lr, "beta": beta, "drop": drop, "noise": noise, "gain": gain}
        super().__init__(parameters, defaults | {"weight_decay": weight_decay, "seed": seed})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override] # no closure
        """Take one step; a parameter without a gradient stays as it is."""
        number = 0
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter -= group["lr"] * self._direction(parameter, group, number)
                number += 1

    def _direction(self, parameter: nn.Parameter, group: dict[str, Any], number: int) -> Tensor:
        """Update the parameter's moving averages, and return what its step follows."""
        assert parameter.grad is not None
        gradient = parameter.grad
        if group["weight_decay"]:
            gradient = gradient + group["weight_decay"] * parameter
        state, beta = self.state[parameter], group["beta"]
        if not state:
            state["t"] = 0
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["t"] += 1
        state["mean"].lerp_(gradient, 1 - beta)
        state["square"].mul_(beta).addcmul_(gradient, gradient, value=1 - beta)
        trusted, tau = preconditioned(state["mean"], state["square"], state["t"], beta, group["gain"])
        direction = trusted * tau
        generator = torch.Generator(parameter.device)
        generator.manual_seed(counter_seed(group["seed"], number, state["t"]))
        if group["noise"]:
            scale = direction.abs().sum() / tau.sum()
            direction += (1 - tau) * scale * self.normal(parameter, generator)
        if group["drop"]:
            direction *= self.kept(parameter, group["drop"], generator) / (1 - group["drop"])
        return direction

    def normal(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Draws from Normal(0, 1)."""
        return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)

    def kept(self, like: Tensor, drop: float, generator: torch.Generator) -> Tensor:
        """1 with probability 1 - `drop`, else 0."""
        draws = torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device)
        return (draws >= drop).to(like.dtype)


@REGISTRY.register()
class GENIE(ERM):
    """GENIE (Cho et al. 2025): ERM with an optimizer that follows what gradients agree on over time.

    For each component, m and s^2 are the mean and the variance of the gradient over the recent updates
    (exponential averages with weight `genie_beta` of the past, corrected for their start), and rho s^2 is the
    variance of m. The step is

        eta M / (1 - p) (m q tau + (1 - tau) a xi),  q = m^2 / (m^2 + rho s^2),  tau = tanh(min(1 / s^2, 10)),

    where eta is `lr`, xi ~ Normal(0, 1), a is the mean of |m| q over the tensor, weighted by tau, and the
    mask M is 0 with probability p = `genie_p`. This is the authors' code. Their paper's box has the gain
    q = E[g]^2 / E[g^2] by averages that are not corrected, so with the variance of one gradient, not of their
    mean: `genie_gain` "paper". Without `genie_noise` and with p = 0, preconditioning alone is left. The noise
    is small unless the variance of a component is above 0.1.
    """

    FACTS = Facts(
        year=2025,
        paper="Cho, Kim and Kim, ICML (PMLR 267), arXiv 2606.16301",
        idea="An optimizer that follows what the gradients of many updates agree on",
        memory="1",
        cost="Moving averages as Adam's, between updates.",
        departures=(
            "At the first update variances are 1e-8 (the authors' code leaves them to rounding). The step "
            "size is `lr`, which their code ignores."
        ),
    )

    HPARAMS = {
        "genie_beta": Hparam(
            0.95, uniform(0.9, 0.999), "weight of the past in moving averages", at_least=0, below=1
        ),
        "genie_p": Hparam(0.4, uniform(0.1, 0.8), "probability to drop a component", at_least=0, below=1),
        "genie_noise": Hparam(True, const(True), "noise in components of large variance"),
        "genie_gain": Hparam(
            "code",
            const("code"),
            "shrinkage as in the authors' code or their paper",
            choices=("code", "paper"),
        ),
    }
    OPTIMISATION = {"lr": Hparam(0.015, log10_uniform(-3, -1), "learning rate", above=0)}

    @classmethod
    def unread_hparams(cls, given: Mapping[str, object]) -> dict[str, str]:
        reasons = dict.fromkeys(CHOICE, f"{cls.__name__} is an optimizer itself")
        return super().unread_hparams(given) | reasons

    def new_optimizer(self, lr: float | None = None) -> optim.Optimizer:
        return GenieOptimizer(
            self.network.parameters(),
            lr=self.hparams["lr"] if lr is None else lr,
            beta=self.hparams["genie_beta"],
            drop=self.hparams["genie_p"],
            noise=self.hparams["genie_noise"],
            gain=self.hparams["genie_gain"],
            weight_decay=self.hparams["weight_decay"],
            seed=global_seed(),
        )
