"""Masks: a component of the gradient counts as far as the environments' gradients agree in its sign."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import DeviceScalar, Minibatch, scalar
from domainbed.algorithms.environment_gradients import EnvironmentGradients
from domainbed.algorithms.update_count import UpdateCount
from domainbed.errors import UsageError
from domainbed.gradients.blockwise import Blockwise, Rule
from domainbed.gradients.domain_gradients import set_gradient
from domainbed.gradients.joint_pass import JointPass
from domainbed.gradients.sign_statistics import SignStatistics, sign_statistics
from domainbed.hparams import Hparam, const, log10_uniform, uniform

_log = logging.getLogger(__name__)


def and_mask(statistics: SignStatistics, tau: float) -> Tensor:
    """ANDMask (P,): 1 where |mean sign| is tau or more, else 0; float32 for gradients of any dtype."""
    return (statistics.agreement >= tau).float()


def sand_mask(statistics: SignStatistics, tau: float, k: float) -> Tensor:
    """SANDMask (P,) in [0, 1]: max(0, tanh(k (|mean sign| - tau) / variance)).

    0/0 and 0 * infinity count as 1e-17, as does the variance of a single gradient.
    """
    assert statistics.variance is not None
    variance = _replace_nan(statistics.variance)
    mask = torch.tanh(k * (1 / variance) * (statistics.agreement - tau)).clamp_min(0)
    return _replace_nan(mask)


def _replace_nan(values: Tensor) -> Tensor:
    return torch.where(values.isnan(), 1e-17, values)


def masked_mean(masked: Tensor, mask: Tensor, sizes: Sequence[int]) -> Tensor:
    """`masked` (P,), changed in place: divided by the mean of `mask` (P,) in each tensor, plus 1e-10.

    Args:
        masked: mean gradient times mask.
        mask: numbers in [0, 1].
        sizes: number of components of each parameter tensor; they sum to P.
    """
    kept = [part.sum() for part in mask.split(list(sizes))]
    return _divide_by_shares(masked, kept, sizes)


def _divide_by_shares(gradient: Tensor, kept: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """`gradient` (P,), each tensor of it divided in place by the mean of its mask, which sums to `kept`."""
    for values, total in zip(gradient.split(list(sizes)), kept, strict=True):
        values *= 1 / (1e-10 + total / values.numel())
    return gradient


class MaskedGradient(EnvironmentGradients):
    """Base: the optimizer gets the environments' mean gradient under a mask.

    A few tensors of size P beyond ERM where environments have separate passes, whatever K is; else none.
    A parameter without a gradient counts as 0.
    """

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        parameters = self.trained_parameters()
        seeds = self.environment_seeds(minibatches)
        joint = self.joint_pass(minibatches, parameters, seeds)
        if joint is not None:
            loss, gradient = joint.losses.mean(), self._masked_jointly(joint, parameters)
        else:
            losses: list[Tensor] = []
            rule, gradients = self.rule(), self.separate_passes(minibatches, parameters, seeds, losses)
            masked, mask = rule.combine(gradients, *rule.constants)
            gradient = masked_mean(masked, mask, [parameter.numel() for parameter in parameters])
            loss = torch.stack(losses).mean()
        set_gradient(parameters, gradient)
        self.optimizer.step()
        return {"loss": scalar(loss)}

    def _masked_jointly(self, joint: JointPass, parameters: Sequence[nn.Parameter]) -> Tensor:
        """What `masked_mean` would give, made block by block."""
        rule, buffer = self.rule(), self.gradient_buffer(parameters)
        blocks = Blockwise(parameters, buffer, rule, fuse=self.fuses(buffer))
        joint.backward(blocks)
        # In the mask's own type, like upstream: a share of few components makes a large factor.
        kept = blocks.finish()[:, 0].to(blocks.measured)
        return _divide_by_shares(blocks.gradient, kept.unbind(), [p.numel() for p in parameters])

    def rule(self) -> Rule:
        """Makes the mean gradient times the mask, and the mask; measures the sum of the mask."""
        raise NotImplementedError


def _and_masked(gradients: Iterable[Tensor], tau: float) -> tuple[Tensor, Tensor]:
    statistics = sign_statistics(gradients)
    mask = and_mask(statistics, tau)
    return statistics.mean * mask, mask


def _sand_masked(gradients: Iterable[Tensor], tau: float, k: float) -> tuple[Tensor, Tensor]:
    statistics = sign_statistics(gradients, variance=True)
    mask = sand_mask(statistics, tau, k)
    return statistics.mean * mask, mask


def _kept(masked: Tensor, mask: Tensor) -> list[Tensor]:
    return [mask.sum()]


@REGISTRY.register()
class ANDMask(MaskedGradient):
    """AND-mask (Parascandolo et al. 2020, arXiv 2009.00329).

    Components whose |mean sign| reaches tau keep their mean, the others are 0; each parameter tensor is
    then divided by the share of components that it kept. |mean sign| takes the values |K - 2j| / K only:
    for three environments every tau above 1/3 is the same method. Costs one ERM step, and a running sum
    and a byte of signs for each component, whatever K is.
    """

    HPARAMS = {
        "tau": Hparam(1, uniform(0.5, 1.0), "smallest |mean sign| that is kept", type=float, at_least=0)
    }

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        if hparams["tau"] > 1:
            raise UsageError(f"ANDMask needs tau of at most 1, not {hparams['tau']}: nothing would train")
        super().__init__(input_shape, num_classes, num_domains, hparams)

    def rule(self) -> Rule:
        return Rule(_and_masked, _kept, 1, (self.hparams["tau"],))


@REGISTRY.register()
class SANDMask(UpdateCount, MaskedGradient):
    """SAND-mask (Shahtalebi et al. 2021, arXiv 2106.02266).

    AND-mask with a smooth edge: the mask is max(0, tanh(k (|mean sign| - tau) / variance)), variance over
    the environments. tau must be below 1: at upstream's default of 1 every mask is 0 and nothing trains;
    the switch `upstream_tau` allows that. With one environment the mask is 1 where the gradient is not
    0. Costs one ERM step, and ANDMask's memory plus a tensor of squared deviations.
    """

    HPARAMS = {
        "tau": Hparam(0.5, uniform(0.0, 1.0), "|mean sign| where the mask begins", at_least=0),
        "k": Hparam(10.0, log10_uniform(-3, 5), "steepness of the mask's edge", above=0),
    }
    SWITCHES = {"upstream_tau": Hparam(False, const(False), "allow tau of 1 or more, which trains nothing")}

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        if hparams["tau"] >= 1:
            if not self.switch("upstream_tau"):
                raise UsageError(
                    f"SANDMask needs tau below 1, not {hparams['tau']}: every mask would be 0 and nothing "
                    'would train; give another tau, or "upstream_tau": true to have it so'
                )
            _log.warning("SANDMask: with tau of %s every mask is 0 and nothing trains", hparams["tau"])

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        values = super().update(minibatches, unlabeled)
        self.count_update()
        return values

    def rule(self) -> Rule:
        return Rule(_sand_masked, _kept, 1, (self.hparams["tau"], self.hparams["k"]))
