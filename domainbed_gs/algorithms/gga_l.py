"""GGA-L (Ballas and Diou 2025, "Gradient-guided annealing for domain generalization")."""

from __future__ import annotations

import numpy as np

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.facts import Facts
from domainbed.gradients.comparison import Combined
from domainbed.gradients.random_numbers import normal_parts
from domainbed.hparams import Hparam, log10_uniform
from domainbed_gs.algorithms.active_sets import mean_weights
from domainbed_gs.algorithms.surgery import GramSurgery


@REGISTRY.register()
class GGAL(GramSurgery):
    """GGA-L (Ballas and Diou 2025): the mean gradient with noise that grows as the gradients disagree.

    g* = mean_k g_k + gamma (1 - s) xi, where s is the mean cosine similarity over pairs of environments and
    xi ~ Normal(0, 1) in each component. The noise is not relative to the gradient: Adam follows it wherever a
    component is smaller. With gamma = 0, or with one environment, this is ERM. Logs `noise`, the factor
    gamma (1 - s).
    """

    FACTS = Facts(
        year=2025,
        paper="Ballas and Diou, Gradient-guided annealing for domain generalization, CVPR, arXiv 2502.20162",
        idea="The mean gradient with noise that grows as the gradients disagree",
        memory="K + 1",
        cost="P normal draws. Less memory in a joint pass.",
        one_environment="ERM",
        departures=(
            "Noise is normal, as in the authors' code (the paper's box: uniform in [0, 1)). No further "
            "pass for the mean gradient (their code: one)."
        ),
    )

    HPARAMS = {
        "gga_gamma": Hparam(1e-3, log10_uniform(-4, -2), "gamma, scale of the noise", at_least=0),
    }

    def weights(self, gram: np.ndarray) -> np.ndarray:
        return mean_weights(len(gram))

    def finish(self, combined: Combined) -> None:
        super().finish(combined)
        k = combined.num_environments
        if k == 1 or combined.fallback:  # no pairs, or gradients that are not finite
            return
        scale = self.hparams["gga_gamma"] * (1 - combined.cosine) * self.factor(k)
        for start, noise in normal_parts(combined.gradient, self.draw_seed()):
            combined.gradient[start : start + len(noise)] += scale * noise
        combined.logged["noise"] = scale / self.factor(k)
