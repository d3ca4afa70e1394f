"""Methods that reweight the environments' risks or add a penalty on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Metrics, Minibatch, scalar
from domainbed.algorithms.densities import Distribution1D, Nonparametric
from domainbed.algorithms.environments import environment_losses
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.update_count import AnnealedERM
from domainbed.errors import UsageError
from domainbed.hparams import Hparam, const, log10_int, log10_uniform, uniform


class InvariantRisk(NamedTuple):
    """IRM's loss and its two parts; 0-d each.

    Attributes:
        loss: `nll` plus the weighted `penalty`.
        nll: mean cross-entropy of the environments.
        penalty: mean penalty of the environments, without its weight.
    """

    loss: Tensor
    nll: Tensor
    penalty: Tensor


@REGISTRY.register()
class IRM(AnnealedERM):
    """Invariant risk minimisation (Arjovsky et al. 2019, IRMv1 in section 3.1).

    The mean risk plus lambda times the mean penalty, from one forward pass over all environments. The penalty
    has the weight 1 before `irm_penalty_anneal_iters` updates; then it has the weight lambda, with a new
    optimizer.
    """

    FACTS = Facts(
        year=2019,
        paper="Arjovsky et al., Invariant risk minimization, arXiv 1907.02893",
        idea="One classifier is to be optimal in every environment: a penalty on a slope of each risk",
        cost="Second derivatives by the logits only.",
        one_environment="a penalty without invariance",
        departures="With one sample in an environment its penalty is 0 (upstream: NaN).",
    )

    HPARAMS = {
        "irm_lambda": Hparam(100.0, log10_uniform(-1, 5), "weight of the penalty", at_least=0),
        "irm_penalty_anneal_iters": Hparam(
            500,
            log10_int(0, 4),
            "number of updates before the penalty has its weight",
            at_least=0,
            counts_updates=True,
        ),
    }

    @staticmethod
    def _irm_penalty(logits: Tensor, y: Tensor) -> Tensor:
        """Unbiased estimate (0-d) of the squared derivative of the risk by a scale of the logits.

        The product of the derivatives on two halves of the batch, so it may be negative. With one sample,
        half of the batch is empty and the penalty is 0.
        """
        scale = torch.ones((), device=logits.device, dtype=logits.dtype, requires_grad=True)
        gradients = [
            torch.autograd.grad(F.cross_entropy(logits[half] * scale, y[half]), [scale], create_graph=True)[0]
            for half in (slice(0, None, 2), slice(1, None, 2))
        ]
        return gradients[0] * gradients[1]

    def invariant_risk(self, logits: Sequence[Tensor], minibatches: Sequence[Minibatch]) -> InvariantRisk:
        """Mean risk plus the weighted mean penalty, from the logits (B, num_classes) of each environment."""
        anneal = self.hparams["irm_penalty_anneal_iters"]
        weight = self.hparams["irm_lambda"] if self.updates >= anneal else 1.0
        nll = environment_losses(logits, minibatches).mean()
        penalties = [self._irm_penalty(z, y) for z, (_, y) in zip(logits, minibatches, strict=True)]
        penalty = torch.stack(penalties).mean()
        return InvariantRisk(nll + weight * penalty, nll, penalty)

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        risk = self.invariant_risk(self.joint_logits(minibatches), minibatches)
        self.annealed_step(risk.loss, self.hparams["irm_penalty_anneal_iters"])
        return {name: scalar(value) for name, value in risk._asdict().items()}


@REGISTRY.register()
class VREx(AnnealedERM):
    """Variance risk extrapolation (Krueger et al. 2020, section 3).

    The mean risk plus lambda times the variance of the environments' risks, from one forward pass over all of
    them. The penalty has the weight 1 before `vrex_penalty_anneal_iters` updates; then it has the weight
    lambda, with a new optimizer. As in upstream, the logged `nll` is the risk of the last environment.
    """

    FACTS = Facts(
        year=2020,
        paper="Krueger et al., Out-of-distribution generalization via risk extrapolation, arXiv 2003.00688",
        idea="A penalty on the variance of the environments' risks",
        one_environment="ERM",
    )

    HPARAMS = {
        "vrex_lambda": Hparam(10.0, log10_uniform(-1, 5), "weight of the penalty", at_least=0),
        "vrex_penalty_anneal_iters": Hparam(
            500,
            log10_int(0, 4),
            "number of updates before the penalty has its weight",
            at_least=0,
            counts_updates=True,
        ),
    }

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        anneal = self.hparams["vrex_penalty_anneal_iters"]
        weight = self.hparams["vrex_lambda"] if self.updates >= anneal else 1.0
        losses = environment_losses(self.joint_logits(minibatches), minibatches)
        penalty = losses.var(correction=0)
        loss = losses.mean() + weight * penalty
        self.annealed_step(loss, anneal)
        return {"loss": scalar(loss), "nll": scalar(losses[-1]), "penalty": scalar(penalty)}


@REGISTRY.register()
class GroupDRO(ERM):
    """Group distributionally robust optimisation (Sagawa et al. 2020, algorithm 1).

    The risks are weighted by q, which grows exponentially with an environment's risk: q_e <- q_e exp(eta
    l_e), normalised to sum 1.
    """

    FACTS = Facts(
        year=2020,
        paper="Sagawa et al., Distributionally robust neural networks for group shifts, arXiv 1911.08731",
        idea="Environments with a high risk gain weight exponentially",
        cost="A forward pass for each environment.",
        one_environment="ERM",
        departures="The state dict of a trained model can be loaded.",
    )

    HPARAMS = {"groupdro_eta": Hparam(0.01, log10_uniform(-3, -1), "step size of the weights q", at_least=0)}

    q: Tensor

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        # Empty until the first update, as in upstream's checkpoints.
        self.register_buffer("q", torch.tensor([]))

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        losses = torch.stack([F.cross_entropy(self.predict(x), y) for x, y in minibatches])
        q = self.q if len(self.q) else torch.ones_like(losses)
        q = q * (self.hparams["groupdro_eta"] * losses.detach()).exp()
        self.q = q / q.sum()
        loss = self.q @ losses
        self.step(loss)
        return {"loss": scalar(loss)}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401 - torch's
        # In a new object q is empty, in a trained one it has K entries.
        self.q = torch.empty_like(state_dict.get(prefix + "q", self.q), device=self.q.device)
        super()._load_from_state_dict(state_dict, prefix, *args)


@REGISTRY.register()
class EQRM(AnnealedERM):
    """Empirical quantile risk minimisation (Eastwood et al. 2022, algorithm 1).

    The mean risk for `eqrm_burnin_iters` updates, then the alpha-quantile of a distribution that is fitted to
    the K risks, with a new optimizer whose learning rate is `eqrm_lr`. As in upstream, a burn-in that is not
    an integer, such as a random one, never changes the optimizer unless `eqrm_round_burnin` is set.

    Args:
        dist: distribution to fit to the risks; a kernel density estimate by default.

    Raises: UsageError if `eqrm_quantile` is 0.
    """

    FACTS = Facts(
        year=2022,
        paper=(
            "Eastwood et al., Probable domain generalization via quantile risk minimization, arXiv 2207.09944"
        ),
        idea="Lowers a high quantile of the distribution of the environments' risks",
        cost="A forward pass for each environment. Needs a device with float64.",
        departures=(
            "One source environment, and a quantile of 0 or 1, are refused. A burn-in that is no integer "
            "leaves the learning rate alone, as upstream, unless `eqrm_round_burnin` is set."
        ),
    )

    MIN_DOMAINS = 2  # one risk has no spread
    HPARAMS = {
        "eqrm_quantile": Hparam(
            0.75, uniform(0.5, 0.99), "the quantile alpha; if negative, the logarithm of 1 - alpha", below=1
        ),
        "eqrm_burnin_iters": Hparam(
            2500,
            log10_uniform(2.5, 3.5),
            "number of updates with the mean risk",
            type=float,
            at_least=0,
            counts_updates=True,
        ),
        "eqrm_lr": Hparam(1e-6, log10_uniform(-7, -5), "learning rate after the burn-in", above=0),
    }
    SWITCHES = {
        "eqrm_round_burnin": Hparam(
            False, const(False), "EQRM: a burn-in that is not an integer also changes the learning rate"
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
        if hparams["eqrm_quantile"] == 0:
            raise UsageError(
                "hyper-parameter eqrm_quantile must be between 0 and 1, or negative (the logarithm of 1 - "
                "quantile), not 0"
            )
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.register_buffer("alpha", torch.tensor(hparams["eqrm_quantile"], dtype=torch.float64))
        self.dist = Nonparametric() if dist is None else dist

    def risk(self, x: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy of one environment, of shape [1]."""
        return F.cross_entropy(self.predict(x), y).reshape(1)

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
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
