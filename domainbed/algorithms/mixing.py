"""Mixup: training on mixtures of samples of different environments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Metrics, Minibatch, scalar
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.minibatch_pairs import random_pairs_of_minibatches
from domainbed.hparams import Hparam, log10_uniform


@REGISTRY.register()
class Mixup(ERM):
    """Inter-domain mixup (Yan et al. 2020).

    Mixes the minibatches of each two neighbours in a random cyclic order of environments. The loss of a
    mixture is the mixture of the losses for both labels.

    Draws a permutation of K from torch's global generator and, for each pair, one Beta(alpha, alpha) number
    from NumPy's.
    """

    FACTS = Facts(
        year=2020,
        paper="Yan et al., Improve unsupervised domain adaptation with mixup training, arXiv 2001.00677",
        idea="Trains on mixtures of samples of two environments, and of their labels",
        one_environment="ERM",
    )

    CHANGES_INPUTS = True
    HPARAMS = {
        "mixup_alpha": Hparam(0.2, log10_uniform(-1, 1), "parameter of the Beta distribution", above=0)
    }

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        alpha = self.hparams["mixup_alpha"]
        objective = torch.zeros((), device=minibatches[0][0].device)
        for (xi, yi), (xj, yj) in random_pairs_of_minibatches(minibatches):
            lam = float(np.random.beta(alpha, alpha))
            logits = self.predict(lam * xi + (1 - lam) * xj)
            objective = (
                objective + lam * F.cross_entropy(logits, yi) + (1 - lam) * F.cross_entropy(logits, yj)
            )
        objective = objective / len(minibatches)
        self.step(objective)
        return {"loss": scalar(objective)}
