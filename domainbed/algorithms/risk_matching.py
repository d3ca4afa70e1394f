"""RDM: matching of the distributions of the samples' risks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Metrics, Minibatch, concatenate, scalar
from domainbed.algorithms.discrepancy import GAMMAS, gaussian_mmd, variance
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.update_count import AnnealedERM
from domainbed.datasets import by_size
from domainbed.errors import UsageError
from domainbed.hparams import Hparam, choice, log2_int, uniform, uniform_int


def _by_name(default: Hparam, **named: Hparam) -> Callable[[str], Hparam]:
    """Declaration of a hyper-parameter that depends on the dataset's name."""
    return by_size(small=default, large=default, **named)


def _weight(default: float, low: float, high: float) -> Hparam:
    return Hparam(default, uniform(low, high), "weight of the matching penalty", at_least=0)


def _annealing(default: int, low: int, high: int) -> Hparam:
    return Hparam(
        default,
        uniform_int(low, high),
        "number of updates without the penalties",
        at_least=0,
        counts_updates=True,
    )


def _batch_size(default: int, low: int, high: int) -> Hparam:
    return Hparam(default, uniform_int(low, high), "B, minibatch size of each environment", at_least=2)


_NO_VARIANCE = Hparam(0.0, choice(0.0), "weight of the variance penalty", at_least=0)


@REGISTRY.register()
class RDM(AnnealedERM):
    """Risk distribution matching (Nguyen et al. 2023).

    The mean risk and, after `rdm_penalty_anneal_iters` updates, two penalties: the squared maximum mean
    discrepancy between the samples' risks in the worst environment and in all of them, and the sum of the
    variances of both. At that point a new optimizer is built, with the learning rate `rdm_lr`. The penalties
    are logged from the start. Minibatches must have equal sizes of two samples or more.
    """

    FACTS = Facts(
        year=2023,
        paper="Nguyen et al., Domain generalisation via risk distribution matching, arXiv 2310.18598",
        idea="The samples' risks in the worst environment are to be distributed as those in all",
        cost="The kernel of all risks: ten matrices (N, N) with N = (K + 1) B.",
        departures=(
            "On any device (upstream: CUDA). One source environment, unequal minibatches and one sample "
            "in an environment are refused."
        ),
    )

    MIN_DOMAINS = 2
    EQUAL_SIZES = True
    WIDTHS = (0.0001, *GAMMAS)
    HPARAMS = {
        "rdm_lambda": _by_name(
            _weight(5.0, 0.1, 10.0),
            DomainNet=_weight(0.5, 0.1, 1.0),
            PACS=_weight(5.0, 1.0, 10.0),
            TerraIncognita=_weight(5.0, 1.0, 10.0),
        ),
        "rdm_penalty_anneal_iters": _by_name(
            _annealing(1500, 800, 2700), DomainNet=_annealing(2400, 1500, 3000)
        ),
        "variance_weight": _by_name(
            Hparam(0.004, uniform(0.001, 0.007), "weight of the variance penalty", at_least=0),
            TerraIncognita=_NO_VARIANCE,
            OfficeHome=_NO_VARIANCE,
            DomainNet=_NO_VARIANCE,
        ),
        "rdm_lr": Hparam(1.5e-5, uniform(8e-6, 2e-5), "learning rate with the penalties", above=0),
    }
    OPTIMISATION = {
        "batch_size": by_size(
            small=Hparam(64, log2_int(3, 9), "B, minibatch size of each environment", at_least=2),
            large=_batch_size(88, 70, 100),
            DomainNet=_batch_size(40, 30, 60),
            TerraIncognita=_batch_size(40, 30, 60),
        ),
    }

    def update(
        self,
        minibatches: Sequence[Minibatch],
        unlabeled: Sequence[Tensor] | None = None,
        held_out_minibatches: Sequence[Minibatch] | None = None,
    ) -> Metrics:
        losses = self._losses(minibatches)
        risk = losses.mean()
        anneal = self.hparams["rdm_penalty_anneal_iters"]
        penalised = self.updates >= anneal
        with torch.set_grad_enabled(penalised):
            matching, spread = self._penalties(losses)
        total = risk
        if penalised:
            # A penalty without weight is not added, because it might be infinite.
            for weight, penalty in (
                (self.hparams["rdm_lambda"], matching),
                (self.hparams["variance_weight"], spread),
            ):
                total = total + weight * penalty if weight else total
        self.annealed_step(total, anneal, lr=self.hparams["rdm_lr"])
        return {
            "update_count": self.updates,
            "total_loss": scalar(total),
            "erm_loss": scalar(risk),
            "matching_penalty": scalar(matching),
            "variance_penalty": scalar(spread),
            "rdm_lambda": self.hparams["rdm_lambda"],
        }

    def _losses(self, minibatches: Sequence[Minibatch]) -> Tensor:
        """Cross-entropy (K, B) of every sample."""
        sizes = [len(y) for _, y in minibatches]
        if len(set(sizes)) > 1:
            raise UsageError(f"RDM needs minibatches of equal size, not {', '.join(map(str, sizes))}")
        x, y = concatenate(minibatches)
        return F.cross_entropy(self.predict(x), y, reduction="none").reshape(len(sizes), -1)

    def _penalties(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        """Matching and variance penalty (0-d) of the samples' risks (K, B)."""
        # The index has shape [1], because a 0-d index would wait for the device.
        worst = losses.index_select(0, losses.mean(dim=1).argmax().reshape(1)).flatten()
        everything = losses.flatten()
        matching = gaussian_mmd([worst[:, None], everything[:, None]], self.WIDTHS)
        return matching, variance(everything) + variance(worst)
