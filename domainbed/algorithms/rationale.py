"""Rationale invariance: each class's contributions of features to logits stay near their running mean."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Metrics, Minibatch, concatenate, scalar
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.precision import at_least_float32
from domainbed.errors import UsageError
from domainbed.hparams import Hparam, log10_uniform

_LARGE = 10**8  # values of the running means

logger = logging.getLogger(__name__)


@REGISTRY.register()
class RIDG(ERM):
    """RIDG, rationale invariance (Chen et al. 2023, "Domain generalization via rationale invariance", ICCV).

    The rationale of a sample with features z is the matrix S (C, D) of contributions to its logits,
    S_cd = W_cd z_d, where W is the weight of the linear classifier. Each class has a running mean M of the
    rationales of its samples, over all environments. The loss is the risk plus w sum over the classes in the
    batch of the mean of |S - M|^2 / C over the class's samples.

    A class's M is the batch's mean when the class is first seen; later, before each use, it moves towards the
    batch's mean by the share `ridg_momentum`. It is a constant for the gradient.

    Raises: UsageError if `nonlinear_classifier` is set.
    """

    FACTS = Facts(
        year=2023,
        paper="Chen et al., Domain generalization via rationale invariance, ICCV, arXiv 2308.11158",
        idea="Each class's contributions of features to logits stay near their running mean",
        cost="A running mean of C x C x D values, for C classes and D features.",
        departures=(
            "Features are computed once (the authors' code: twice, with two dropout masks). Running means "
            "are saved with a run, and keep no graph of earlier updates."
        ),
    )

    HPARAMS = {
        "ridg_reg": Hparam(0.01, log10_uniform(-2, -1), "weight w of the penalty", at_least=0),
        "ridg_momentum": Hparam(
            0.001,
            log10_uniform(-4, -1),
            "weight of the batch's mean in the running mean",
            at_least=0,
            at_most=1,
        ),
    }

    UPDATES_ONLY = ("means", "seen")

    means: Tensor
    seen: Tensor

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        if hparams["nonlinear_classifier"]:
            raise UsageError(
                'RIDG needs a linear classifier; set the hyper-parameter "nonlinear_classifier" to false'
            )
        super().__init__(input_shape, num_classes, num_domains, hparams)
        width = self.featurizer.n_outputs
        if num_classes**2 * width >= _LARGE:
            logger.warning(
                "RIDG keeps %d^2 x %d values for the means of its classes, %.2g GB",
                num_classes,
                width,
                num_classes**2 * width * 4e-9,
            )
        self.register_buffer("means", torch.zeros(num_classes, num_classes, width))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        x, y = concatenate(minibatches)
        features = self.featurizer(x)
        risk = F.cross_entropy(self.classifier(features), y)
        penalty = self._penalty(at_least_float32(features), y)
        loss = risk + self.hparams["ridg_reg"] * penalty
        self.step(loss)
        return {"loss": scalar(loss), "nll": scalar(risk), "penalty": scalar(penalty)}

    def _penalty(self, z: Tensor, y: Tensor) -> Tensor:
        """Sum over classes of the mean squared distance (0-d) to the running means, which move first.

        Args:
            z: features (B, D).
            y: labels (B,).
        """
        weight = self.classifier.get_parameter("weight")
        of_class = F.one_hot(y, len(weight)).to(z.dtype)
        counts = of_class.sum(0)
        self._move_means(weight.detach(), of_class.T @ z.detach() / counts.clamp_min(1)[:, None], counts > 0)
        # |S - M|^2 by samples, without S (B, C, D): sum_d (sum_c W^2) z^2 - 2 (sum_c W M) z + sum_c M^2.
        squares = z.square() @ weight.square().sum(0)
        crossed = (z * torch.einsum("id,cid->cd", weight, self.means)[y]).sum(1)
        distances = squares - 2 * crossed + self.means.square().sum((1, 2))[y]
        return (distances / counts[y]).sum() / len(weight)

    @torch.no_grad()
    def _move_means(self, weight: Tensor, class_means: Tensor, present: Tensor) -> None:
        """Move the running means of the classes that are `present` (C,) towards the batch's.

        Args:
            weight: W (C, D).
            class_means: mean features (C, D) of each class in the batch.
            present: bool.
        """
        shares = torch.where(self.seen, self.hparams["ridg_momentum"], 1.0) * present
        rationales = weight * class_means[:, None]
        self.means.lerp_(rationales.to(self.means.dtype), shares[:, None, None].to(self.means.dtype))
        self.seen |= present
