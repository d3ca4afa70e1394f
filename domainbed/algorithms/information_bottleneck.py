"""Information bottleneck: methods that penalise the variance of the features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Metrics, Minibatch, concatenate, scalar
from domainbed.algorithms.discrepancy import variance
from domainbed.algorithms.environments import environment_losses
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.risk import IRM
from domainbed.algorithms.update_count import AnnealedERM
from domainbed.hparams import Declaration, Hparam, log10_int, log10_uniform

BOTTLENECK: dict[str, Declaration] = {
    "ib_lambda": Hparam(100.0, log10_uniform(-1, 5), "weight of the features' variance", at_least=0),
    "ib_penalty_anneal_iters": Hparam(
        500,
        log10_int(0, 4),
        "number of updates without the features' variance",
        at_least=0,
        counts_updates=True,
    ),
}


def add_bottleneck(algorithm: AnnealedERM, loss: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The loss with the penalty of the information bottleneck added, and the penalty; both 0-d.

    The penalty is the variance of a feature over the samples of an environment, mean over features and
    environments.

    Args:
        algorithm: an algorithm with the hyper-parameters `BOTTLENECK`.
        loss: the loss without the penalty, 0-d. It is returned unchanged if the penalty has no weight.
        features: features (n_e, d) of each environment.

    Raises: UsageError for an environment with one sample.
    """
    annealed = algorithm.updates >= algorithm.hparams["ib_penalty_anneal_iters"]
    weight = algorithm.hparams["ib_lambda"] if annealed else 0.0
    with torch.set_grad_enabled(weight > 0):
        penalty = torch.stack([variance(each).mean() for each in features]).mean()
    return (loss + weight * penalty if weight else loss), penalty


def joint_features(
    algorithm: AnnealedERM, minibatches: Sequence[Minibatch]
) -> tuple[list[Tensor], list[Tensor]]:
    """Features (n_e, d) and logits (n_e, num_classes) of each environment, from one joint forward pass."""
    sizes = [len(y) for _, y in minibatches]
    features: Tensor = algorithm.featurizer(concatenate(minibatches)[0])
    logits: Tensor = algorithm.classifier(features)
    return list(features.split(sizes)), list(logits.split(sizes))


@REGISTRY.register()
class IB_ERM(AnnealedERM):
    """ERM with an information bottleneck (Ahuja et al. 2021).

    The mean risk plus lambda times the variance of the features, which is added after
    `ib_penalty_anneal_iters` updates, with a new optimizer. As in upstream, the logged `nll` equals `loss`.
    """

    FACTS = Facts(
        year=2021,
        paper=(
            "Ahuja et al., Invariance principle meets information bottleneck for out-of-distribution "
            "generalization, arXiv 2106.06607"
        ),
        idea="ERM with a penalty on the variance of the features",
        departures="One sample in an environment is refused (upstream: NaN).",
    )

    HPARAMS = BOTTLENECK

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        features, logits = joint_features(self, minibatches)
        loss, penalty = add_bottleneck(self, environment_losses(logits, minibatches).mean(), features)
        self.annealed_step(loss, self.hparams["ib_penalty_anneal_iters"])
        return {"loss": scalar(loss), "nll": scalar(loss), "IB_penalty": scalar(penalty)}


@REGISTRY.register()
class IB_IRM(IRM):
    """IRM with an information bottleneck (Ahuja et al. 2021).

    IRM's loss plus lambda times the variance of the features. A new optimizer is built when either penalty
    reaches its weight. As in upstream, the logged `nll` equals `loss`.
    """

    FACTS = Facts(
        year=2021,
        paper=(
            "Ahuja et al., Invariance principle meets information bottleneck for out-of-distribution "
            "generalization, arXiv 2106.06607"
        ),
        idea="IRM with a penalty on the variance of the features",
        cost="As IRM.",
        one_environment="a penalty without invariance",
        departures="One sample in an environment is refused (upstream: NaN).",
    )

    HPARAMS = BOTTLENECK

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        features, logits = joint_features(self, minibatches)
        invariant = self.invariant_risk(logits, minibatches)
        loss, penalty = add_bottleneck(self, invariant.loss, features)
        self.annealed_step(
            loss, self.hparams["irm_penalty_anneal_iters"], self.hparams["ib_penalty_anneal_iters"]
        )
        return {
            "loss": scalar(loss),
            "nll": scalar(loss),
            "IRM_penalty": scalar(invariant.penalty),
            "IB_penalty": scalar(penalty),
        }
