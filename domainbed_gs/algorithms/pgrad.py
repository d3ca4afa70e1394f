"""PGrad (Wang, Grigsby and Qi 2023, "PGrad: Learning principal gradients")."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, optim

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Metrics, Minibatch, scalar
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.optimizers import descend
from domainbed.algorithms.update_count import UpdateDraws
from domainbed.datasets import by_size
from domainbed.gradients.pieces import Rows
from domainbed.gradients.vectors import flat, set_values
from domainbed.hparams import Hparam, Kind, choice, const, log2_int, log10_uniform

_SMALLEST = 1e-12  # of the largest variance: smaller ones are rounding


def principal_coefficients(gram: np.ndarray, directions: int) -> np.ndarray:
    """Coefficients (T,) of a trajectory's T points in the principal gradient; their sum is 0.

    With D = first point - last point, and unit vectors v_j along which the points have the variances
    lambda_j, the principal gradient is |D| sum_j lambda_j sign(D.v_j) v_j / |lambda|.

    Args:
        gram: inner products (T, T) of the points, float64, from any origin.
        directions: how many of the largest variances count.
    """
    if not np.isfinite(gram).all():
        return np.zeros(len(gram))
    centering = np.eye(len(gram)) - 1 / len(gram)
    variances, vectors = np.linalg.eigh(centering @ gram @ centering)
    largest = np.argsort(variances)[::-1][:directions]
    variances, vectors = variances[largest], vectors[:, largest]
    real = variances > max(_SMALLEST * variances[0], 0.0)
    if not real.any():
        return np.zeros(len(gram))
    variances, vectors = variances[real], vectors[:, real]
    signs = np.where(vectors[0] > vectors[-1], 1.0, -1.0)
    length = np.sqrt(max(gram[0, 0] + gram[-1, -1] - 2 * gram[0, -1], 0.0))
    shares = variances / np.linalg.norm(variances)
    coefficients = vectors @ (shares * signs * length / np.sqrt(variances))
    centred: np.ndarray = coefficients - coefficients.mean()
    return centred


def principal_gradient(offsets: Sequence[Tensor], directions: int) -> Tensor:
    """The principal gradient (P,) of a trajectory.

    Args:
        offsets: of each point but the first from the first one, (P,).
        directions: see `principal_coefficients`.
    """
    points = Rows(offsets)
    gram = np.zeros((len(offsets) + 1, len(offsets) + 1))
    gram[1:, 1:] = points.gram().cpu().numpy()  # the one copy that an update waits for
    coefficients = torch.from_numpy(principal_coefficients(gram, directions)[1:])
    gradient = torch.empty_like(offsets[0])
    points.write(coefficients.to(gradient.device), gradient)
    return gradient


@REGISTRY.register()
class PGrad(UpdateDraws, ERM):
    """PGrad (Wang et al. 2023): descends the principal directions of a short training trajectory.

    Each minibatch is cut into `pgrad_passes` parts. An inner optimizer (Adam by default) with step size `lr`
    trains on the first part of each environment in a random order, then on the second part of each in another
    order, and so on. The points of this trajectory have principal directions. The sum of the
    `pgrad_directions` of largest variance, each with its variance as weight and the sign of the way back from
    the last point to the first, is given the length of that way. From the first point, the network then takes
    one step of plain descent of step size `pgrad_outer_lr` along the sum, plus `weight_decay` times the
    weights.

    The inner optimizer keeps its state from one update to the next. Running statistics of batch norms are
    those of the trajectory. A part without samples is left out. The logged `loss` is the mean over the
    trajectory.
    """

    FACTS = Facts(
        year=2023,
        paper=(
            "Wang, Grigsby and Qi, PGrad: Learning principal gradients for domain generalization, ICLR, "
            "arXiv 2305.01134"
        ),
        idea="Descends the principal directions of a short training trajectory",
        memory="3 * K + 4",
        cost=(
            "The samples of an ERM step, in `pgrad_passes` K small steps one after another, and as many "
            "points of the trajectory."
        ),
        departures=(
            "Without the authors' parallel variant, whose direction is one environment's step. Directions "
            "that are rounding are left out. Running statistics are those of the trajectory (their code: "
            "never change)."
        ),
    )

    HPARAMS = {
        "pgrad_passes": Hparam(3, const(3), "parts of each minibatch", at_least=1),
        "pgrad_directions": Hparam(4, choice(1, 2, 4, 8), "number of principal directions", at_least=1),
        "pgrad_outer_lr": Hparam(0.1, choice(0.05, 0.1, 0.5), "step size along the directions", above=0),
    }
    OPTIMISATION = {
        "lr": by_size(
            small=Hparam(1e-3, log10_uniform(-4.5, -2.5), "learning rate of the inner Adam", above=0),
            large=Hparam(5e-5, const(5e-5), "learning rate of the inner Adam", above=0, kind=Kind.SEARCHED),
        ),
        "weight_decay": by_size(
            small=Hparam(
                0.0, const(0.0), "coupled weight decay of the outer step", at_least=0, kind=Kind.SEARCHED
            ),
            large=Hparam(0.0, log10_uniform(-6, -4), "coupled weight decay of the outer step", at_least=0),
        ),
        "batch_size": by_size(
            small=Hparam(64, log2_int(3, 9), "B, minibatch size of each environment", at_least=1),
            large=Hparam(
                32, const(32), "B, minibatch size of each environment", at_least=1, kind=Kind.SEARCHED
            ),
        ),
    }

    def new_optimizer(self, lr: float | None = None) -> optim.Optimizer:
        return self.optimizer_over(self.network.parameters(), self.hparams["lr"] if lr is None else lr)

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        parameters = self.trained_parameters()
        start = flat(parameters)
        losses, offsets = [], []
        for x, y in self.visits(minibatches):
            loss = F.cross_entropy(self.predict(x), y)
            descend(loss, self.optimizer)
            losses.append(loss.detach())
            offsets.append(flat(parameters) - start)
        direction = principal_gradient(offsets, self.hparams["pgrad_directions"])
        direction.add_(start, alpha=self.hparams["weight_decay"])
        set_values(parameters, start - self.hparams["pgrad_outer_lr"] * direction)
        self.count_update()
        return {"loss": scalar(torch.stack(losses).mean())}

    def visits(self, minibatches: Sequence[Minibatch]) -> list[Minibatch]:
        """The parts of the minibatches in the order of the trajectory."""
        passes: int = self.hparams["pgrad_passes"]
        draws = self.draws()
        parts = []
        for i in range(passes):
            for k in draws.permutation(len(minibatches)):
                x, y = minibatches[k]
                part = slice(i * len(y) // passes, (i + 1) * len(y) // passes)
                parts.append((x[part], y[part]))
        return [(x, y) for x, y in parts if len(y)]
