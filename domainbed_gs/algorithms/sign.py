"""Sign methods as algorithms: Agr-Sum, Agr-Rand and GradDrop look at each component by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from domainbed.errors import UsageError, check_choice
from domainbed.gradients.blockwise import Blockwise, Rule
from domainbed.gradients.domain_gradients import flat
from domainbed.gradients.joint_pass import JointPass
from domainbed.hparams import Hparam, const
from domainbed_gs import surgery
from domainbed_gs.algorithms.base import GradientSurgery, Operation, Stats
from domainbed_gs.algorithms.similarity import Similarity, run_blockwise


class SignSurgery(GradientSurgery):
    """Base of Agr-Sum and Agr-Rand: components where all environments agree in sign are summed.

    Needs nothing of size P beyond ERM where environments share a pass; a few tensors, whatever K, where each
    has its own.
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
        consensus = surgery.sign_consensus(gradients, self.hparams["zero_agrees"], self.process_group)
        kept = surgery.agr_sum(consensus)
        sizes = [parameter.numel() for parameter in parameters]

        def magnitudes() -> Tensor:
            return surgery.magnitudes(kept, consensus.agree, sizes)

        stats = _stats(consensus, kept)
        return self._finished(
            kept, consensus.agree, magnitudes, stats, consensus.num_environments, parameters
        )

    def operates_jointly(self) -> bool:
        # With zeros that agree, what is kept does not tell which components do.
        return super().operates_jointly() and not self.hparams["zero_agrees"]

    def operate_jointly(self, joint: JointPass, parameters: Sequence[nn.Parameter]) -> Operation:
        buffer = self.gradient_buffer(parameters)
        blocks = Blockwise(parameters, buffer, AGREEING, fuse=self.fuses(buffer))
        sums, similarity = run_blockwise(joint, blocks)
        kept, stats = blocks.gradient, _joint_stats(sums, similarity, len(blocks.gradient))
        return self._finished(kept, None, lambda: sums[:, :2], stats, len(joint.losses), parameters)

    def _finished(
        self,
        kept: Tensor,
        agree: Tensor | None,
        magnitudes: Callable[[], Tensor],
        stats: Stats,
        num_environments: int,
        parameters: Sequence[nn.Parameter],
    ) -> Operation:
        """The operation that Agr-Sum's gradient `kept` (P,) leads to; see `resolve`."""
        if agree is None and (self.hparams["freeze_masked"] or self.hparams["wd"] == "masked"):
            agree = kept != 0
        sizes = [parameter.numel() for parameter in parameters]
        gradient, more = self.resolve(kept, agree, magnitudes, sizes)
        if self.factor(num_environments) != 1:
            gradient *= self.factor(num_environments)
        if self.hparams["wd"] == "masked":
            # Adam would pull a weight that never agrees to zero; here decay acts on agreeing ones only.
            gradient += self.hparams["weight_decay"] * flat(parameters) * agree
        frozen = ~agree if self.hparams["freeze_masked"] and agree is not None else None
        return Operation(gradient, {**stats, **more}, frozen)

    def resolve(
        self,
        kept: Tensor,
        agree: Tensor | None,
        magnitudes: Callable[[], Tensor],
        sizes: Sequence[int],
    ) -> tuple[Tensor, Stats]:
        """What to do about the components that disagree.

        Args:
            kept: the sum where the environments agree, 0 elsewhere (P,); may be changed in place.
            agree: where they agree (P,) bool; None for wherever `kept` is not 0.
            magnitudes: makes the sum of |kept| and the number of agreeing components of each tensor (n, 2).
            sizes: number of components of each parameter tensor.

        Returns: the combined gradient (P,), as a sum over environments, and further numbers to log.
        """
        raise NotImplementedError


class AgrSum(SignSurgery):
    """Agr-Sum (Mansilla et al., ICCV 2021, section 3.3): where signs disagree the gradient is 0."""

    def resolve(
        self,
        kept: Tensor,
        agree: Tensor | None,
        magnitudes: Callable[[], Tensor],
        sizes: Sequence[int],
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
        self,
        kept: Tensor,
        agree: Tensor | None,
        magnitudes: Callable[[], Tensor],
        sizes: Sequence[int],
    ) -> tuple[Tensor, Stats]:
        of_tensors = magnitudes()
        sigma = surgery.agr_rand_sigma(of_tensors.sum(0))
        mean = sigma
        if self.hparams["sigma"] == "tensor":
            lengths = torch.tensor(sizes, device=kept.device)
            sigmas = surgery.agr_rand_sigma(of_tensors)
            mean = (sigmas * lengths).sum() / len(kept)
            sigma = sigmas.to(kept.dtype).repeat_interleave(lengths, output_size=len(kept))
        gradient = surgery.agr_rand(kept, agree, sigma, self.noise_seed(), self.fuses(kept))
        return gradient, {"sigma": mean, "no_agreement": (of_tensors[:, 1].sum() == 0).float()}


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
        consensus = surgery.sign_consensus(sums.passing(gradients), process_group=self.process_group)
        positive, negative = self.process_group.sum(sums.positive), self.process_group.sum(sums.negative)
        gradient = surgery.graddrop(positive, negative, self._uniform(positive), self.hparams["leak"])
        stats = _stats(consensus, gradient)
        gradient *= self.factor(consensus.num_environments)
        return Operation(gradient, stats)

    def operate_jointly(self, joint: JointPass, parameters: Sequence[nn.Parameter]) -> Operation:
        buffer = self.gradient_buffer(parameters)
        rule = Rule(_dropped, _sizes_of, 3, (self.hparams["leak"],))
        blocks = Blockwise(parameters, buffer, rule, [self._uniform(buffer)], self.fuses(buffer))
        sums, similarity = run_blockwise(joint, blocks)
        gradient = blocks.gradient.mul_(self.factor(len(joint.losses)))
        return Operation(gradient, _joint_stats(sums, similarity, len(gradient)))

    def _uniform(self, like: Tensor) -> Tensor:
        """This update's draws from [0, 1), one for each component of `like` (P,)."""
        noise = torch.Generator(like.device).manual_seed(self.noise_seed())
        return torch.rand(like.shape, generator=noise, dtype=like.dtype, device=like.device)


def _agreeing(gradients: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Agr-Sum, and its signs."""
    kept = surgery.agreeing_sum(gradients)
    return kept, kept.sign()


def _dropped(gradients: Sequence[Tensor], leak: float, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """GradDrop, and the signs of Agr-Sum."""
    stack = torch.stack(list(gradients))
    positive, negative = stack.clamp_min(0).sum(0), stack.clamp_max(0).sum(0)
    return surgery.graddrop(positive, negative, uniform, leak), surgery.agreeing_sum(gradients).sign()


def _sizes_of(combined: Tensor, signs: Tensor) -> list[Tensor]:
    """Sum of the absolute values if `signs` are theirs, number of signs that are not 0, sum of squares."""
    return [combined.dot(signs), signs.dot(signs), combined.dot(combined)]


AGREEING = Rule(_agreeing, _sizes_of, 3)
"""Agr-Sum's rule."""


def _joint_stats(sums: Tensor, similarity: Similarity, size: int) -> Stats:
    """What `GradientSurgery` logs, of `_sizes_of` each parameter tensor (n, 3), with `size` = P."""
    of_all = sums.sum(0)
    return {
        "agreement": of_all[1] / size,
        "cosine": similarity.cosine,
        "removed": 1 - of_all[2].sqrt() / similarity.sum_norm,
    }


def _stats(consensus: surgery.Consensus, kept: Tensor) -> Stats:
    """What `GradientSurgery` logs, with `kept` (P,) as what is left of the sum."""
    return {
        "agreement": consensus.agreement,
        "cosine": consensus.cosine,
        "removed": 1 - kept.norm() / consensus.total.norm().clamp_min(1e-30),
    }
