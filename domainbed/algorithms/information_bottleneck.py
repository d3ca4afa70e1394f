"""Methods that keep the features' variance low."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.annealed import Annealed
from domainbed.algorithms.base import DeviceScalar, Minibatch, concatenate, environment_losses, scalar
from domainbed.algorithms.moments import variance
from domainbed.algorithms.risk import IRM
from domainbed.hparams import Declaration, Hparam, log10_int, log10_uniform

BOTTLENECK: dict[str, Declaration] = {
    "ib_lambda": Hparam(100.0, log10_uniform(-1, 5), "weight of the features' variance", at_least=0),
    "ib_penalty_anneal_iters": Hparam(
        500, log10_int(0, 4), "updates before the features' variance counts", at_least=0
    ),
}


def add_bottleneck(algorithm: Annealed, loss: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The loss with the penalty of the information bottleneck added, and the penalty (both 0-d).

    That is the variance of a feature over an environment's samples, mean over features and environments.

    Args:
        algorithm: has the hyper-parameters `BOTTLENECK`.
        loss: what the penalty is added to; it is given back where the weight is 0.
        features: features (n_e, d) of each environment.

    Raises: UsageError for an environment with one sample.
    """
    reached = algorithm.updates >= algorithm.hparams["ib_penalty_anneal_iters"]
    weight = algorithm.hparams["ib_lambda"] if reached else 0.0
    with torch.set_grad_enabled(weight > 0):
        penalty = torch.stack([variance(each).mean() for each in features]).mean()
    return (loss + weight * penalty if weight else loss), penalty


def joint_features(
    algorithm: Annealed, minibatches: Sequence[Minibatch]
) -> tuple[list[Tensor], list[Tensor]]:
    """Features (n_e, d) and logits of each environment, from one forward pass over all of them."""
    sizes = [len(y) for _, y in minibatches]
    features: Tensor = algorithm.featurizer(concatenate(minibatches)[0])
    logits: Tensor = algorithm.classifier(features)
    return list(features.split(sizes)), list(logits.split(sizes))


@REGISTRY.register()
class IB_ERM(Annealed):
    """ERM with an information bottleneck (Ahuja et al. 2021, arXiv 2106.06607).

    Mean risk plus lambda times the features' variance, which counts from `ib_penalty_anneal_iters` updates
    on, when the optimizer starts anew. `nll` is returned equal to `loss`, as upstream has it. No cost to
    speak of beyond ERM's.
    """

    HPARAMS = BOTTLENECK

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        features, logits = joint_features(self, minibatches)
        loss, penalty = add_bottleneck(self, environment_losses(logits, minibatches).mean(), features)
        self.annealed_step(loss, self.hparams["ib_penalty_anneal_iters"])
        return {"loss": scalar(loss), "nll": scalar(loss), "IB_penalty": scalar(penalty)}


@REGISTRY.register()
class IB_IRM(IRM):
    """IRM with an information bottleneck (Ahuja et al. 2021, arXiv 2106.06607).

    IRM's loss plus lambda times the features' variance. The optimizer starts anew when either penalty takes
    its weight. `nll` is returned equal to `loss`, as upstream has it. Costs what IRM does.
    """

    HPARAMS = BOTTLENECK

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
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
