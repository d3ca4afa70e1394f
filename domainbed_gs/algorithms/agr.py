"""Agr-Sum and Agr-Rand (Mansilla et al., "Domain Generalization via Gradient Surgery", ICCV 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.facts import Facts
from domainbed.gradients.comparison import Combined, signs_agree
from domainbed.gradients.vectors import Layout, total
from domainbed.hparams import Hparam, const
from domainbed_gs.algorithms.surgery import ComponentwiseSurgery


@REGISTRY.register()
class AgrSum(ComponentwiseSurgery):
    """Agr-Sum (Mansilla et al. 2021, section 3.3): the sum of the gradients where all signs agree, else 0.

    A component that is 0 in every environment counts as disagreeing, as in the authors' code.
    """

    FACTS = Facts(
        year=2021,
        paper="Mansilla et al., Domain generalization via gradient surgery, ICCV, arXiv 2108.01621",
        idea="Sums the environments' gradients where all their signs agree, else 0",
        memory="K + 1",
        cost="Less memory in a joint pass.",
        one_environment="ERM",
    )

    SWITCHES = {
        "zero_agrees": Hparam(False, const(False), "removed; only false is accepted", choices=(False,)),
    }

    def combine(self, gradients: Sequence[Tensor]) -> Tensor:
        return signs_agree(gradients) * total(gradients)


@REGISTRY.register()
class AgrRand(AgrSum):
    """Agr-Rand (Mansilla et al. 2021, section 3.3): the sum where all K signs agree, noise elsewhere.

    The noise is Normal(0, sigma^2), where sigma is the mean absolute value of the sum over the components
    that agree. It is logged as `sigma`. Where no component agrees there is no noise; `no_agreement` logs the
    share of such updates.
    """

    FACTS = Facts(
        year=2021,
        paper="Mansilla et al., Domain generalization via gradient surgery, ICCV, arXiv 2108.01621",
        idea="Agr-Sum with noise in the components whose signs disagree",
        memory="K + 1",
        cost="P normal draws. Less memory in a joint pass.",
        one_environment="ERM with noise where the gradient is 0",
        departures=(
            "Where no component agrees there is no noise (the authors' is NaN). Draws depend on the run's "
            "seed and the update alone."
        ),
    )

    HPARAMS = {
        "sigma": Hparam(
            "network",
            const("network"),
            "one sigma for the network, or one for each tensor",
            choices=("network", "tensor"),
        )
    }

    def finish(self, combined: Combined) -> None:
        sigma = self._sigma(combined)  # before masked weight decay is added
        super().finish(combined)
        self.engine.add_noise_where_zero(combined.gradient, sigma, self.draw_seed())
        combined.logged["sigma"] = sigma.mean() / self.factor(combined.num_environments)
        combined.logged["no_agreement"] = (combined.agreeing == 0).float()

    def _sigma(self, combined: Combined) -> Tensor:
        """Standard deviation of the noise; 0-d, or of each component (P,)."""
        assert combined.magnitude is not None
        if self.hparams["sigma"] == "network":
            return combined.magnitude / combined.agreeing.clamp_min(1)
        sizes = list(Layout(self.trained_parameters()).sizes)
        tensors = combined.gradient.split(sizes)
        sigmas = torch.stack([part.abs().sum() / part.count_nonzero().clamp_min(1) for part in tensors])
        counts = torch.tensor(sizes, device=sigmas.device)
        return sigmas.repeat_interleave(counts, output_size=len(combined.gradient))
