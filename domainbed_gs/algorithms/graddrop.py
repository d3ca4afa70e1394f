"""GradDrop (Chen et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.facts import Facts
from domainbed.gradients.componentwise import Block
from domainbed.gradients.vectors import total
from domainbed.hparams import Hparam, const
from domainbed_gs.algorithms.surgery import ComponentwiseSurgery


@REGISTRY.register()
class GradDrop(ComponentwiseSurgery):
    """GradDrop (Chen et al. 2020, algorithm 1) on the gradients of the parameters: "just pick a sign".

    Each component keeps its positive parts with a probability called purity, sum_k max(g_k, 0) / sum_k |g_k|,
    else its negative parts, so that without `leak` the expectation is the sum of the gradients.
    `leak` is the share of the plain sum that passes, the same for every environment.
    """

    FACTS = Facts(
        year=2020,
        paper=(
            "Chen et al., Just pick a sign: Optimizing deep multitask models with gradient sign dropout, "
            "NeurIPS, arXiv 2010.06808"
        ),
        idea="Keeps the positive or the negative parts of each component, by chance",
        memory="K + 2",
        cost="P uniform draws. Less memory in a joint pass.",
        one_environment="ERM",
        departures=(
            "On the gradients of the parameters, the common simplification; the paper's are those of an "
            "activation."
        ),
    )

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
