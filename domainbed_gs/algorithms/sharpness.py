"""SAM and its kin as algorithms: ERM with gradients at perturbed weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from domainbed.algorithms.base import DeviceScalar, Minibatch, concatenate, scalar
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.update_count import UpdateCount
from domainbed.gradients.domain_gradients import set_gradient
from domainbed.hparams import Hparam, choice, log10_uniform
from domainbed.seeds import generator
from domainbed_gs.algorithms.perturbation import (
    TwoPoints,
    asam_step,
    dgsam_gradient,
    gsam_gradient,
    sagm_step,
    sam_step,
    two_points,
)


class _Perturbed(ERM):
    """Base: the gradient that goes to Adam comes from perturbed weights."""

    HPARAMS = {"rho": Hparam(0.05, choice(0.01, 0.02, 0.05, 0.1), "length of the ascent", at_least=0)}

    def loss_leaving_statistics(self, x: Tensor, y: Tensor) -> Tensor:
        """ERM's loss; batch norms use the minibatch's statistics and leave the running ones as they are."""
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        return F.cross_entropy(functional_call(self.network, buffers, (x,)), y)


class SAM(_Perturbed):
    """Sharpness-aware minimisation (Foret et al. 2021, arXiv 2010.01412) of ERM's loss.

    The gradient at theta + rho g / |g|. Running statistics of batch norms are updated in the first pass
    only; dropout draws anew in the second. Needs two ERM steps' time and two more tensors of size P, the
    weights and the first gradient. Logs beside `loss`, at the weights, `sharpness`: by how much it is
    higher at the perturbed ones.
    """

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        x, y = concatenate(minibatches)
        sizes = [len(labels) for _, labels in minibatches]
        seen: list[Tensor] = []

        def ascent() -> Tensor:
            losses = F.cross_entropy(self.predict(x), y, reduction="none")
            seen.append(losses.detach().mean())
            return self.ascent_loss(losses, sizes)

        parameters = self.trained_parameters()
        descent = partial(self.loss_leaving_statistics, x, y)
        points = two_points(ascent, descent, parameters, self.ascent_step)
        set_gradient(parameters, self.combine(points))
        self.optimizer.step()
        return {"loss": scalar(seen[0]), "sharpness": scalar(points.perturbed_loss - seen[0])}

    def ascent_loss(self, losses: Tensor, sizes: Sequence[int]) -> Tensor:
        """What the perturbation goes up, 0-d.

        Args:
            losses: of all samples (sum of B,), one environment after the other.
            sizes: number of samples of each environment.
        """
        return losses.mean()

    def ascent_step(self, gradient: Tensor, weights: Tensor) -> Tensor:
        """The perturbation (P,) that belongs to the gradient (P,) at the weights (P,)."""
        return sam_step(gradient, self.hparams["rho"])

    def combine(self, points: TwoPoints) -> Tensor:
        """The gradient (P,) for the optimizer."""
        return points.perturbed_gradient


class ASAM(SAM):
    """Adaptive SAM (Kwon et al. 2021, arXiv 2102.11600): perturbs relative to each weight's size.

    The step is rho theta^2 g / |theta g|, so that rescaling layers changes nothing. Time and memory are
    SAM's.
    """

    HPARAMS = {"rho": Hparam(0.5, choice(0.1, 0.2, 0.5, 1.0), "length of the ascent, relative", at_least=0)}

    def ascent_step(self, gradient: Tensor, weights: Tensor) -> Tensor:
        return asam_step(gradient, weights, self.hparams["rho"])


class GSAM(SAM):
    """Surrogate gap guided SAM (Zhuang et al. 2022, arXiv 2203.08065).

    SAM's gradient less alpha times the part of ERM's that is orthogonal to it, which lowers the surrogate
    gap. The learning rate is constant here, and so is rho. Time and memory are SAM's.
    """

    HPARAMS = {
        "gsam_alpha": Hparam(0.001, choice(0.01, 0.02, 0.05, 0.1), "weight of what is orthogonal", at_least=0)
    }

    def combine(self, points: TwoPoints) -> Tensor:
        return gsam_gradient(points.gradient, points.perturbed_gradient, self.hparams["gsam_alpha"])


def _sagm_alpha(dataset: str) -> Hparam:
    """The paper's values (B.16), and a draw that contains them."""
    published = 5e-4 if dataset in ("OfficeHome", "DomainNet") else 1e-3
    return Hparam(published, log10_uniform(-4, -2), "the ascent is alpha gradients less", at_least=0)


class SAGM(SAM):
    """Sharpness-aware gradient matching (Wang et al. 2023, arXiv 2303.10353).

    Perturbs by (rho / |g| - alpha) g and steps along the mean of the gradients before and after, so that both
    losses fall and the gradients come to agree. Time and memory are SAM's.
    """

    HPARAMS = {"sagm_alpha": _sagm_alpha}

    def ascent_step(self, gradient: Tensor, weights: Tensor) -> Tensor:
        return sagm_step(gradient, self.hparams["rho"], self.hparams["sagm_alpha"])

    def combine(self, points: TwoPoints) -> Tensor:
        return (points.gradient + points.perturbed_gradient) / 2


class DISAM(SAM):
    """Domain-inspired SAM (Zhang et al. 2024, arXiv 2405.18861): keeps losses together on the way up.

    The ascent is along the gradient of ERM's loss minus lambda times the variance (over K, not K - 1) of
    the environments' losses; the gradient after it is that of ERM's loss. With one environment, or lambda
    0, it is SAM. Time and memory are SAM's.
    """

    HPARAMS = {"disam_lambda": Hparam(0.1, choice(0.05, 0.1, 0.2), "weight of the variance", at_least=0)}

    def ascent_loss(self, losses: Tensor, sizes: Sequence[int]) -> Tensor:
        environments = torch.stack([part.mean() for part in losses.split(list(sizes))])
        objective: Tensor = losses.mean() - self.hparams["disam_lambda"] * environments.var(unbiased=False)
        return objective


class DGSAM(UpdateCount, _Perturbed):
    """Individual sharpness-aware minimisation, domain by domain (Song et al. 2025, arXiv 2503.23430).

    Environments are visited in random order, the first once more in the end. On each visit the gradient of
    the environment's loss is added to the update, and is the next ascent. The update is K / (K + 1) times
    the sum, so of the scale of a sum over environments. Batch norms see one environment at a time, and keep
    their running statistics on the last visit. The order depends on the run's seed and the update's number
    alone.

    Needs K + 1 gradients of one environment, (K + 1) / K of an ERM step's time, and two more tensors of
    size P, the weights and the sum. The `loss` logged is the mean of the environments' losses where they
    are first visited.
    """

    STATE = ("order_seed",)

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        # The run's seed, if the global generator was seeded with it as in `train`.
        self.order_seed = torch.initial_seed() % 2**63

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        order = generator(self.order_seed, self.updates).permutation(len(minibatches))
        seen: list[Tensor] = []

        def visit(x: Tensor, y: Tensor) -> Tensor:
            loss = F.cross_entropy(self.predict(x), y)
            seen.append(loss.detach())
            return loss

        visits = [partial(visit, *minibatches[k]) for k in order]
        visits.append(partial(self.loss_leaving_statistics, *minibatches[order[0]]))
        parameters = self.trained_parameters()
        set_gradient(parameters, dgsam_gradient(visits, parameters, self.hparams["rho"]))
        self.optimizer.step()
        self.count_update()
        return {"loss": scalar(torch.stack(seen).mean())}
