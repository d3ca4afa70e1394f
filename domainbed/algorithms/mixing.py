"""Methods that mix samples of different environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import DeviceScalar, Minibatch, scalar
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.pairing import random_pairs_of_minibatches
from domainbed.hparams import Hparam, log10_uniform


@REGISTRY.register()
class Mixup(ERM):
    """Inter-domain mixup (Yan et al. 2020, arXiv 2001.00677).

    Minibatches of a random cycle of environments are mixed pairwise. Draws: one permutation of K from
    torch's global generator, and for each pair one Beta(alpha, alpha) from NumPy's.
    """

    HPARAMS = {
        "mixup_alpha": Hparam(0.2, log10_uniform(-1, 1), "parameter of the Beta distribution", above=0)
    }

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        alpha = self.hparams["mixup_alpha"]
        objective = torch.zeros((), device=minibatches[0][0].device)
        for (xi, yi), (xj, yj) in random_pairs_of_minibatches(minibatches):
            share = float(np.random.beta(alpha, alpha))
            logits = self.predict(share * xi + (1 - share) * xj)
            objective = (
                objective + share * F.cross_entropy(logits, yi) + (1 - share) * F.cross_entropy(logits, yj)
            )
        objective = objective / len(minibatches)
        self.step(objective)
        return {"loss": scalar(objective)}
