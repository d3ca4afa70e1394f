"""Masks: a component of the mean gradient counts as far as the environments' gradients agree in its sign."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Metrics, Minibatch
from domainbed.algorithms.environment_gradients import ComponentwiseMethod
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.update_count import UpdateCount
from domainbed.errors import UsageError
from domainbed.gradients.comparison import Combined
from domainbed.gradients.vectors import Layout, total
from domainbed.hparams import Hparam, const, log10_uniform, uniform

_log = logging.getLogger(__name__)


class MaskedMean(ComponentwiseMethod):
    """Base: the mean gradient times a mask, each parameter tensor divided by its mask's mean plus 1e-10."""

    @abstractmethod
    def mask(self, gradients: Sequence[Tensor]) -> Tensor:
        """The mask (m,), float32 numbers in [0, 1], of the K environments' gradients (m,)."""

    def combine(self, gradients: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        mask = self.mask(gradients)
        return total(gradients) / len(gradients) * mask, mask

    def finish(self, combined: Combined) -> None:
        assert combined.weights is not None
        sizes = Layout(self.trained_parameters()).sizes
        parts = list(combined.gradient.split(sizes))
        means = [mask.mean() for mask in combined.weights.split(sizes)]
        torch._foreach_mul_(parts, [1 / (1e-10 + mean) for mean in means])


def mean_sign(gradients: Sequence[Tensor]) -> Tensor:
    """|mean over environments of the signs| (m,), in [0, 1]; the sign of 0 is 0."""
    return total(gradient.sign() for gradient in gradients).abs() / len(gradients)


@REGISTRY.register()
class ANDMask(MaskedMean):
    """AND-mask (Parascandolo et al. 2020, section 3).

    Components whose |mean sign| is tau or more keep their mean, the others are 0; each parameter tensor is
    then divided by the share of components that it kept. |mean sign| takes the values |K - 2j| / K only:
    for three environments every tau above 1/3 is the same method.
    """

    FACTS = Facts(
        year=2020,
        paper="Parascandolo et al., Learning explanations that are hard to vary, arXiv 2009.00329",
        idea="Keeps the components of the mean gradient in whose sign the environments agree",
        memory="K + 1",
        cost="Less memory in a joint pass.",
        one_environment="ERM with other step lengths",
        departures=(
            "`tau` above 1, which trains nothing, is refused. A parameter without gradient counts as 0 "
            "(upstream: an exception)."
        ),
    )

    HPARAMS = {
        "tau": Hparam(
            1, uniform(0.5, 1.0), "smallest |mean sign| that is kept", type=float, at_least=0, at_most=1
        )
    }

    def mask(self, gradients: Sequence[Tensor]) -> Tensor:
        tau: float = self.hparams["tau"]
        return (mean_sign(gradients) >= tau).float()


@REGISTRY.register()
class SANDMask(UpdateCount, MaskedMean):
    """SAND-mask (Shahtalebi et al. 2021, section 3).

    AND-mask with a smooth edge: the mask is max(0, tanh(k (|mean sign| - tau) / variance)), variance over
    the environments. tau must be below 1: at upstream's default of 1 every mask is 0 and nothing trains;
    the switch `upstream_tau` allows that. With one environment the mask is 1 where the gradient is not
    0.
    """

    FACTS = Facts(
        year=2021,
        paper=(
            "Shahtalebi et al., SAND-mask: An enhanced gradient masking strategy for the discovery of "
            "invariances in domain generalization, arXiv 2106.02266"
        ),
        idea="ANDMask with a smooth edge, by the variance of the gradients over environments",
        memory="K + 1",
        cost="Less memory in a joint pass.",
        one_environment="ERM with other step lengths",
        departures=(
            "`tau` is 0.5; upstream's 1 trains nothing and needs `upstream_tau`. A parameter without "
            "gradient counts as 0 (upstream: an exception)."
        ),
    )

    HPARAMS = {
        "tau": Hparam(0.5, uniform(0.0, 1.0), "|mean sign| where the mask begins", at_least=0),
        "k": Hparam(10.0, log10_uniform(-3, 5), "steepness of the mask's edge", above=0),
    }
    DISTRIBUTED = True
    SWITCHES = {"upstream_tau": Hparam(False, const(False), "allow tau of 1 or more, which trains nothing")}

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        if hparams["tau"] >= 1:
            if not self.switch("upstream_tau"):
                raise UsageError(
                    f"SANDMask needs tau below 1, not {hparams['tau']}: every mask would be 0 and nothing "
                    'would train; choose a smaller tau, or set "upstream_tau": true to train nothing'
                )
            _log.warning("SANDMask: with tau of %s every mask is 0 and nothing trains", hparams["tau"])

    def mask(self, gradients: Sequence[Tensor]) -> Tensor:
        # 0/0 and 0 * infinity count as 1e-17, as does the variance of a single gradient (upstream's code).
        variance = _nan_to(1e-17, _variance(gradients))
        edge = self.hparams["k"] * (1 / variance) * (mean_sign(gradients) - self.hparams["tau"])
        return _nan_to(1e-17, torch.tanh(edge).clamp_min(0))

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        values = super().update(minibatches, unlabeled)
        self.count_update()
        return values


def _variance(gradients: Sequence[Tensor]) -> Tensor:
    """Unbiased variance over environments (m,); NaN for one environment."""
    mean = total(gradients) / len(gradients)
    squares = total((gradient - mean).square() for gradient in gradients)
    return squares / (len(gradients) - 1) if len(gradients) > 1 else torch.full_like(mean, torch.nan)


def _nan_to(value: float, tensor: Tensor) -> Tensor:
    return torch.where(tensor.isnan(), value, tensor)
