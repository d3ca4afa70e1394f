"""DGSAM: gradual ascent over the environments instead of SAM's one step on the mean risk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Metrics, Minibatch, scalar
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.update_count import UpdateDraws
from domainbed.gradients.vectors import add_to_values, set_gradient, total
from domainbed_gs.algorithms.sharpness import (
    Loss,
    Parameters,
    SharpnessAware,
    loss_and_gradient,
    restored,
    sam_factor,
)


def gradual_ascent(losses: Sequence[Loss], parameters: Parameters, rho: float) -> Iterator[Tensor]:
    """Gradients g_j of `losses` at theta_0 = theta, theta_j+1 = theta_j + rho g_j / |g_j|.

    After the last gradient, the parameters have their initial values again.
    """
    with restored(parameters):
        for loss in losses[:-1]:
            _, gradient = loss_and_gradient(loss, parameters)
            yield gradient
            add_to_values(parameters, gradient, sam_factor(gradient, rho))
        yield loss_and_gradient(losses[-1], parameters)[1]


@REGISTRY.register()
class DGSAM(UpdateDraws, SharpnessAware):
    """Individual sharpness-aware minimisation of each environment (Song et al. 2025).

    Visits the environments in a random order, and the first one again at the end. Each visit takes the
    gradient of that environment's risk and then perturbs the weights along it. The gradient for the optimizer
    is K / (K + 1) times the sum over the K + 1 visits, so on the scale of a sum over environments. Batch
    norms see one environment at a time, and do not update their running statistics on the last visit. The
    logged `loss` is the mean of the environments' risks on their first visits.

    The order depends only on the seed of the run and the number of the update.
    """

    FACTS = Facts(
        year=2025,
        paper=(
            "Song et al., DGSAM: Domain generalization via individual sharpness-aware minimization, arXiv "
            "2503.23430"
        ),
        idea="Gradual ascent over the environments, whose gradients on the way are summed",
        time="(K + 1) / K",
        memory="6",
        departures=(
            "After a description of the authors' code, which was not found in public. Running statistics "
            "are not updated on the last visit."
        ),
    )

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        k = len(minibatches)
        order = self.draws().permutation(k)
        risks: list[Tensor] = []

        def risk(x: Tensor, y: Tensor) -> Tensor:
            value = self.sample_losses(x, y).mean()
            risks.append(value.detach())
            return value

        losses = [partial(risk, *minibatches[e]) for e in order]
        losses.append(partial(self.loss_without_statistics, *minibatches[order[0]]))
        parameters = self.trained_parameters()
        gradient = total(gradual_ascent(losses, parameters, self.hparams["rho"]))
        set_gradient(parameters, gradient.mul_(k / (k + 1)))
        self.optimizer.step()
        self.count_update()
        return {"loss": scalar(torch.stack(risks).mean())}
