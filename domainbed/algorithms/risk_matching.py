"""RDM: matching of the distributions of samples' risks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.annealed import Annealed
from domainbed.algorithms.base import DeviceScalar, Minibatch, concatenate, scalar
from domainbed.algorithms.discrepancy import GAMMAS, gaussian_mmd
from domainbed.algorithms.moments import variance
from domainbed.datasets import by_size
from domainbed.errors import UsageError
from domainbed.hparams import Hparam, choice, log2_int, uniform, uniform_int


def _by_name(otherwise: Hparam, **named: Hparam) -> Callable[[str], Hparam]:
    """Declaration of a hyper-parameter by the dataset's name."""
    return by_size(small=otherwise, large=otherwise, **named)


def _weight(default: float, low: float, high: float) -> Hparam:
    return Hparam(default, uniform(low, high), "weight of the matching penalty", at_least=0)


def _annealing(default: int, low: int, high: int) -> Hparam:
    return Hparam(default, uniform_int(low, high), "updates before the penalties count", at_least=0)


def _batch_size(default: int, low: int, high: int) -> Hparam:
    return Hparam(default, uniform_int(low, high), "B, minibatch size of each environment", at_least=2)


_NO_VARIANCE = Hparam(0.0, choice(0.0), "weight of the variance penalty", at_least=0)


@REGISTRY.register()
class RDM(Annealed):
    """Risk distribution matching (Nguyen et al. 2023, arXiv 2310.18598).

    From `rdm_penalty_anneal_iters` updates on, the mean risk plus two penalties: the squared maximum mean
    discrepancy of the samples' risks in the worst environment and in all of them, and the variances of
    both; the optimizer starts anew then, with `rdm_lr`. One forward pass over all environments. Beyond ERM:
    the kernel of all risks, ten matrices (N, N) with N = (K + 1) B. The penalties are returned before they
    count, too. Needs two environments at least, and minibatches of equal size, two samples or more.
    """

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
        "rdm_lr": Hparam(1.5e-5, uniform(8e-6, 2e-5), "learning rate once the penalties count", above=0),
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
    ) -> Mapping[str, float | DeviceScalar]:
        losses = self._losses(minibatches)
        risk = losses.mean()
        anneal = self.hparams["rdm_penalty_anneal_iters"]
        counts = self.updates >= anneal
        with torch.set_grad_enabled(counts):
            matching, spread = self._penalties(losses)
        total = risk
        if counts:
            # Adding nothing where a weight is 0 keeps a penalty that overflows out of the gradient.
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
        """Matching and variance penalty (0-d) of the samples' risks (K, B); the first worst row counts."""
        # An index of shape [1]: a 0-d one would wait for the device.
        worst = losses.index_select(0, losses.mean(dim=1).argmax().reshape(1)).flatten()
        everything = losses.flatten()
        matching = gaussian_mmd([worst[:, None], everything[:, None]], self.WIDTHS)
        return matching, variance(everything) + variance(worst)
