"""Methods that change how the environments' risks are weighted or add a penalty on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.annealed import Annealed
from domainbed.algorithms.base import DeviceScalar, Minibatch, environment_losses, scalar
from domainbed.algorithms.densities import Distribution1D, Nonparametric
from domainbed.algorithms.erm import ERM
from domainbed.errors import UsageError
from domainbed.hparams import Hparam, const, log10_int, log10_uniform, uniform


class InvariantRisk(NamedTuple):
    """IRM's loss and what it is made of (0-d each)."""

    loss: Tensor
    nll: Tensor
    penalty: Tensor


@REGISTRY.register()
class IRM(Annealed):
    """Invariant risk minimisation (Arjovsky et al. 2019, arXiv 1907.02893), penalty IRMv1.

    One forward pass over all environments; mean risk plus lambda times the mean penalty. When the
    penalty takes effect, after `irm_penalty_anneal_iters` updates, the optimizer starts anew.
    """

    HPARAMS = {
        "irm_lambda": Hparam(100.0, log10_uniform(-1, 5), "weight of the penalty", at_least=0),
        "irm_penalty_anneal_iters": Hparam(
            500, log10_int(0, 4), "updates before the penalty has its weight", at_least=0
        ),
    }

    @staticmethod
    def _irm_penalty(logits: Tensor, y: Tensor) -> Tensor:
        """Squared gradient of the risk by a scale of the logits, without bias: from two halves of the batch.

        It may be negative. A minibatch of one sample has an empty half, and no penalty.
        """
        scale = torch.ones((), device=logits.device, dtype=logits.dtype, requires_grad=True)
        gradients = [
            torch.autograd.grad(F.cross_entropy(logits[half] * scale, y[half]), [scale], create_graph=True)[0]
            for half in (slice(0, None, 2), slice(1, None, 2))
        ]
        return gradients[0] * gradients[1]

    def invariant_risk(self, logits: Sequence[Tensor], minibatches: Sequence[Minibatch]) -> InvariantRisk:
        """Mean risk plus weighted mean penalty, from the logits (B, num_classes) of each environment."""
        anneal = self.hparams["irm_penalty_anneal_iters"]
        weight = self.hparams["irm_lambda"] if self.updates >= anneal else 1.0
        nll = environment_losses(logits, minibatches).mean()
        penalties = [self._irm_penalty(z, y) for z, (_, y) in zip(logits, minibatches, strict=True)]
        penalty = torch.stack(penalties).mean()
        return InvariantRisk(nll + weight * penalty, nll, penalty)

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        risk = self.invariant_risk(self.joint_logits(minibatches), minibatches)
        self.annealed_step(risk.loss, self.hparams["irm_penalty_anneal_iters"])
        return {name: scalar(value) for name, value in risk._asdict().items()}


@REGISTRY.register()
class VREx(Annealed):
    """Risk extrapolation (Krueger et al. 2020, arXiv 2003.00688): equal risks in all environments.

    One forward pass over all environments; mean risk plus lambda times the risks' variance. When the
    penalty takes its weight, after `vrex_penalty_anneal_iters` updates, the optimizer starts anew. `nll` is
    returned as the last environment's risk, as upstream has it. No cost to speak of beyond ERM's.
    """

    HPARAMS = {
        "vrex_lambda": Hparam(10.0, log10_uniform(-1, 5), "weight of the penalty", at_least=0),
        "vrex_penalty_anneal_iters": Hparam(
            500, log10_int(0, 4), "updates before the penalty has its weight", at_least=0
        ),
    }

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        anneal = self.hparams["vrex_penalty_anneal_iters"]
        weight = self.hparams["vrex_lambda"] if self.updates >= anneal else 1.0
        losses = environment_losses(self.joint_logits(minibatches), minibatches)
        penalty = losses.var(correction=0)
        loss = losses.mean() + weight * penalty
        self.annealed_step(loss, anneal)
        return {"loss": scalar(loss), "nll": scalar(losses[-1]), "penalty": scalar(penalty)}


@REGISTRY.register()
class GroupDRO(ERM):
    """Group distributionally robust optimisation (Sagawa et al. 2020, arXiv 1911.08731, algorithm 1).

    Environments with high risk gain weight, exponentially.
    """

    HPARAMS = {"groupdro_eta": Hparam(0.01, log10_uniform(-3, -1), "step size of the weights q", at_least=0)}

    q: Tensor

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        # Empty until the first update, as in upstream's checkpoints.
        self.register_buffer("q", torch.tensor([]))

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        losses = torch.stack([F.cross_entropy(self.predict(x), y) for x, y in minibatches])
        q = self.q if len(self.q) else torch.ones_like(losses)
        q = q * (self.hparams["groupdro_eta"] * losses.detach()).exp()
        self.q = q / q.sum()
        loss = self.q @ losses
        self.step(loss)
        return {"loss": scalar(loss)}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401 - torch's
        # A new object's q is empty, a used one's has K entries.
        self.q = torch.empty_like(state_dict.get(prefix + "q", self.q), device=self.q.device)
        super()._load_from_state_dict(state_dict, prefix, *args)


@REGISTRY.register()
class EQRM(Annealed):
    """Empirical quantile risk minimisation (Eastwood et al. 2022, arXiv 2207.09944, algorithm 1).

    The mean risk for `eqrm_burnin_iters` updates, then the alpha-quantile of a distribution estimated from
    the K risks, searched for in float64. The optimizer starts anew at the change, with `eqrm_lr`; upstream
    compares the numbers for equality, so that a burn-in that is no integer, as random draws are, never
    changes the optimizer: `eqrm_round_burnin` does. One forward pass an environment; no cost to speak of
    beyond ERM's. Needs two environments, and a device with float64.

    Args:
        dist: what is fitted to the risks; by default a kernel density estimate.

    Raises: UsageError if `eqrm_quantile` is 0, or 1 or more.
    """

    MIN_DOMAINS = 2  # one risk has no spread
    HPARAMS = {
        "eqrm_quantile": Hparam(
            0.75, uniform(0.5, 0.99), "alpha, which quantile; if negative, the logarithm of 1 - alpha"
        ),
        "eqrm_burnin_iters": Hparam(
            2500, log10_uniform(2.5, 3.5), "updates with the mean risk", type=float, at_least=0
        ),
        "eqrm_lr": Hparam(1e-6, log10_uniform(-7, -5), "learning rate after the burn-in", above=0),
    }
    SWITCHES = {
        "eqrm_round_burnin": Hparam(
            False, const(False), "EQRM: a burn-in that is no integer changes the learning rate, too"
        )
    }

    alpha: Tensor

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        num_domains: int,
        hparams: dict[str, Any],
        dist: Distribution1D | None = None,
    ) -> None:
        quantile = hparams["eqrm_quantile"]
        if quantile == 0 or quantile >= 1:
            raise UsageError(
                f"hyper-parameter eqrm_quantile is between 0 and 1, or negative (the logarithm of 1 - "
                f"quantile), not {quantile}"
            )
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.register_buffer("alpha", torch.tensor(quantile, dtype=torch.float64))
        self.dist = Nonparametric() if dist is None else dist

    def risk(self, x: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy, shape [1], of one environment."""
        return F.cross_entropy(self.predict(x), y).reshape(1)

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        burnin = self.hparams["eqrm_burnin_iters"]
        risks = torch.cat([self.risk(x, y) for x, y in minibatches])
        if self.updates < burnin:
            loss = risks.mean()
        else:
            self.dist.estimate_parameters(risks)
            loss = self.dist.icdf(self.alpha)
        threshold = math.ceil(burnin) if self.switch("eqrm_round_burnin") else burnin
        self.annealed_step(loss, threshold, lr=self.hparams["eqrm_lr"])
        return {"loss": scalar(loss)}
