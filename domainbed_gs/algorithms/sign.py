"""Sign methods as algorithms: Agr-Sum, Agr-Rand and GradDrop look at each component by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from domainbed.errors import UsageError, check_choice
from domainbed.hparams import Hparam, const
from domainbed.lib.domain_gradients import flat
from domainbed_gs import surgery
from domainbed_gs.algorithms.base import GradientSurgery, Operation, Stats


class SignSurgery(GradientSurgery):
    """Base of Agr-Sum and Agr-Rand: components where all environments agree in sign are summed.

    Needs a few tensors of size P beyond ERM, whatever K.
    """

    HPARAMS = {
        "zero_agrees": Hparam(
            False, const(False), "a component that is 0 everywhere agrees (paper, literally)"
        ),
        "freeze_masked": Hparam(False, const(False), "weights that disagree stay as they are in that step"),
    }
    DISTRIBUTED = True
    WD = ("coupled", "decoupled", "masked")

    def operate(self, gradients: Iterator[Tensor], parameters: Sequence[nn.Parameter]) -> Operation:
        consensus = surgery.sign_consensus(gradients, self.hparams["zero_agrees"], self.ranks)
        kept = surgery.agr_sum(consensus)
        stats = _stats(consensus, kept)
        gradient, more = self.resolve(consensus, kept, [parameter.numel() for parameter in parameters])
        gradient *= self.factor(consensus.num_environments)
        if self.hparams["wd"] == "masked":
            # Adam would pull a weight that never agrees to zero; here decay acts on agreeing ones only.
            gradient += self.hparams["weight_decay"] * flat(parameters) * consensus.agree
        frozen = ~consensus.agree if self.hparams["freeze_masked"] else None
        return Operation(gradient, {**stats, **more}, frozen)

    def resolve(
        self, consensus: surgery.Consensus, kept: Tensor, sizes: Sequence[int]
    ) -> tuple[Tensor, Stats]:
        """What to do about the components that disagree.

        Args:
            consensus: what the environments agree on.
            kept: the sum where they agree, 0 elsewhere (P,); may be changed in place.
            sizes: number of components of each parameter tensor.

        Returns: the combined gradient (P,), as a sum over environments, and further numbers to log.
        """
        raise NotImplementedError


class AgrSum(SignSurgery):
    """Agr-Sum (Mansilla et al., ICCV 2021, section 3.3): where signs disagree the gradient is 0."""

    def resolve(
        self, consensus: surgery.Consensus, kept: Tensor, sizes: Sequence[int]
    ) -> tuple[Tensor, Stats]:
        return kept, {}


class AgrRand(SignSurgery):
    """Agr-Rand (Mansilla et al., ICCV 2021, section 3.3): where signs disagree the gradient is noise.

    Its standard deviation, logged as `sigma` (a mean, if each tensor has its own), is the mean absolute
    value of the agreeing components; with none agreeing there is no noise, and `no_agreement` logs the
    share of such updates.
    """

    HPARAMS = {
        "sigma": Hparam("network", const("network"), "one sigma for the network, or one for each tensor")
    }

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        check_choice("hyper-parameter sigma is", hparams["sigma"], ("network", "tensor"))
        super().__init__(input_shape, num_classes, num_domains, hparams)

    def resolve(
        self, consensus: surgery.Consensus, kept: Tensor, sizes: Sequence[int]
    ) -> tuple[Tensor, Stats]:
        noise = self.noise_generator(consensus.total.device)
        sigma = surgery.agr_rand_sigma(
            kept, consensus.agree, sizes if self.hparams["sigma"] == "tensor" else None
        )
        nothing = consensus.agree.any().logical_not().float()
        gradient = surgery.agr_rand(kept, consensus.agree, sigma, noise)
        return gradient, {"sigma": sigma.mean(), "no_agreement": nothing}


class GradDrop(GradientSurgery):
    """GradDrop (Chen et al. 2020, arXiv 2010.06808) on the gradients of the parameters: "just pick a sign".

    Each component keeps either its positive or its negative parts, at random, with probabilities that make
    the sum over environments the expectation. The paper does this on the gradients of an activation; on
    those of the parameters is the common simplification. Direction on the scale of a sum.

    Draws P uniform numbers an update, from the surgery's own generator. Needs a few tensors of size P
    beyond ERM, whatever K.
    """

    HPARAMS = {
        "leak": Hparam(0.0, const(0.0), "share of the plain sum that passes, 0 to 1", at_least=0),
    }
    DISTRIBUTED = True

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        if not 0 <= hparams["leak"] <= 1:
            raise UsageError(f"hyper-parameter leak is from 0 to 1, not {hparams['leak']}")
        super().__init__(input_shape, num_classes, num_domains, hparams)

    def operate(self, gradients: Iterator[Tensor], parameters: Sequence[nn.Parameter]) -> Operation:
        sums = surgery.SignSums()
        consensus = surgery.sign_consensus(sums.passing(gradients), ranks=self.ranks)
        positive, negative = self.ranks.sum(sums.positive), self.ranks.sum(sums.negative)
        noise = self.noise_generator(consensus.total.device)
        uniform = torch.rand(
            consensus.total.shape, generator=noise, dtype=consensus.total.dtype, device=noise.device
        )
        gradient = surgery.graddrop(positive, negative, uniform, self.hparams["leak"])
        stats = _stats(consensus, gradient)
        gradient *= self.factor(consensus.num_environments)
        return Operation(gradient, stats)


def _stats(consensus: surgery.Consensus, kept: Tensor) -> Stats:
    """What `GradientSurgery` logs, with `kept` (P,) as what is left of the sum."""
    return {
        "agreement": consensus.agreement,
        "cosine": consensus.cosine,
        "removed": 1 - kept.norm() / consensus.total.norm().clamp_min(1e-30),
    }
