"""GradDrop (Chen et al. 2020, arXiv 2010.06808)."""

from __future__ import annotations

import torch
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.gradients.componentwise import Block
from domainbed.gradients.vectors import total
from domainbed.hparams import Hparam, const
from domainbed_gs.algorithms.surgery import ComponentwiseSurgery


@REGISTRY.register()
class GradDrop(ComponentwiseSurgery):
    """GradDrop (Chen et al. 2020, algorithm 1) on the gradients of the parameters: "just pick a sign".

    Each component keeps its positive parts with a probability called purity, sum_k max(g_k, 0) / sum_k |g_k|,
    else its negative parts, so that without `leak` the expectation is the sum of the gradients.
    The paper does this on the gradients of an activation; on those of the parameters is the common
    simplification. `leak` is the share of the plain sum that passes, the same for every environment. Costs
    P uniform draws.
    """

    HPARAMS = {
        "leak": Hparam(0.0, const(0.0), "share of the plain sum that passes, 0 to 1", at_least=0, at_most=1),
    }
    DRAWS = True

    def combine(self, gradients: Block) -> Tensor:
        positive = total(gradient.clamp_min(0) for gradient in gradients)
        negative = total(gradient.clamp_max(0) for gradient in gradients)
        keeps_positive = positive > gradients.uniform() * (positive - negative)
        picked = torch.where(keeps_positive, positive, negative)
        leak = self.hparams["leak"]
        return picked if leak == 0 else torch.lerp(picked, positive + negative, leak)
