"""GGA-L (Ballas and Diou 2025, "Gradient-guided annealing for domain generalization")."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.facts import Facts
from domainbed.gradients.comparison import Combined
from domainbed.gradients.random_numbers import normal_parts, uniform
from domainbed.hparams import Hparam, const, log10_uniform
from domainbed_gs.algorithms.active_sets import mean_weights
from domainbed_gs.algorithms.surgery import GramSurgery


@REGISTRY.register()
class GGAL(GramSurgery):
    """GGA-L (Ballas and Diou 2025): the mean gradient with noise that grows as the gradients disagree.

    g* = mean_k g_k + gamma (1 - s) xi, where s is the mean cosine similarity over pairs of environments and
    xi ~ Normal(0, 1) in each component, as in the authors' code. In their paper's box xi is uniform in
    [0, 1), so its mean is not 0: `gga_noise` "uniform". The noise is not relative to the gradient: Adam
    follows it wherever a component is smaller. With gamma = 0, or with one environment, this is ERM. Logs
    `noise`, the factor gamma (1 - s).
    """

    FACTS = Facts(
        year=2025,
        paper="Ballas and Diou, Gradient-guided annealing for domain generalization, CVPR, arXiv 2502.20162",
        idea="The mean gradient with noise that grows as the gradients disagree",
        memory="K + 1",
        cost="P normal draws. Less memory in a joint pass.",
        one_environment="ERM",
        departures=(
            "Noise is normal, as in the authors' code (`gga_noise` uniform is the paper's box). No "
            "further pass for the mean gradient (their code: one)."
        ),
    )

    HPARAMS = {
        "gga_gamma": Hparam(1e-3, log10_uniform(-4, -2), "gamma, scale of the noise", at_least=0),
        "gga_noise": Hparam(
            "normal",
            const("normal"),
            "noise: normal, or uniform in [0, 1)",
            choices=("normal", "uniform"),
        ),
    }

    def weights(self, gram: np.ndarray) -> np.ndarray:
        return mean_weights(len(gram))

    def finish(self, combined: Combined) -> None:
        super().finish(combined)
        k = combined.num_environments
        if k == 1 or combined.fallback:  # no pairs, or gradients that are not finite
            return
        scale = self.hparams["gga_gamma"] * (1 - combined.cosine) * self.factor(k)
        for start, noise in self._noise(combined.gradient):
            combined.gradient[start : start + len(noise)] += scale * noise
        combined.logged["noise"] = scale / self.factor(k)

    def _noise(self, like: Tensor) -> Iterable[tuple[int, Tensor]]:
        """(start, draws (m,)) of consecutive parts of P draws; `like` is (P,)."""
        if self.hparams["gga_noise"] == "uniform":
            return [(0, uniform(like, self.draw_seed()))]
        return normal_parts(like, self.draw_seed())
