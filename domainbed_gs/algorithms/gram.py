"""Gram methods as algorithms: K weights from the K x K inner products of the gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from domainbed.errors import check_choice
from domainbed.gradients.fused import fused
from domainbed.gradients.joint_pass import JointPass
from domainbed.gradients.parameter_gradients import ParameterGradients
from domainbed.hparams import Hparam, const, uniform
from domainbed_gs import surgery
from domainbed_gs.algorithms.base import GradientSurgery, Operation, Scale, Stats


class GramSurgery(GradientSurgery):
    """Base: the combined gradient is sum_k w_k g_k, and w depends on the inner products alone.

    A subclass says in `weights` how. Inner products are in float64. Where environments share a pass, the
    gradients of linear layers are never held: their inner products are those of inputs and outputs (gradient
    surgery specification, D.6), their weighted sum is one product. Else holds the K gradients.

    Where a method defines no direction the update is the mean's; the share of such updates is logged as
    `fallback`.
    """

    HPARAMS = {
        "reduction": Hparam("mean", const("mean"), "scale of the combined gradient: sum or mean"),
    }
    DISTRIBUTED = True
    scale: Scale = "mean"

    def operate(self, gradients: Iterator[Tensor], parameters: Sequence[nn.Parameter]) -> Operation:
        kept = self.process_group.exchange_shards(list(gradients))
        gram = self.process_group.sum(surgery.gram_matrix(kept)).cpu().numpy()
        weights, fallback = self._weights_or_mean(gram)
        agreement = self.process_group.weighted_mean(surgery.sign_agreement(kept), kept[0].numel())
        combined = surgery.combine(kept, weights * self.factor(len(kept)))
        size = sum(parameter.numel() for parameter in parameters)
        return Operation(
            self.process_group.gather_shards(combined, size),
            self._stats(gram, agreement, weights) | {"fallback": fallback},
        )

    def operate_jointly(self, joint: JointPass, parameters: Sequence[nn.Parameter]) -> Operation:
        sizes = [parameter.numel() for parameter in parameters]
        kept: list[tuple[Sequence[int], ParameterGradients]] = []
        products: list[Tensor] = []
        agreeing: list[Tensor] = []
        buffer = self.gradient_buffer(parameters)
        count = fused(_agreeing) if self.fuses(buffer) else _agreeing

        def visit(positions: Sequence[int], gradients: ParameterGradients) -> None:
            kept.append((positions, gradients))
            products.append(gradients.gram())
            for _, stack in gradients.blocks():
                agreeing.append(count(stack.unbind()))

        joint.backward(visit)
        agreement = torch.stack(agreeing).double().sum() / sum(sizes)
        gram = torch.stack(products).sum(0).cpu().numpy()
        weights, fallback = self._weights_or_mean(gram)
        factors = torch.from_numpy(weights * self.factor(len(gram))).to(buffer.device)
        parts = dict(enumerate(buffer.split(sizes)))
        for positions, gradients in kept:
            own = [parts.pop(position) for position in positions]
            combined = own[0] if len(own) == 1 else torch.cat(own)
            gradients.write(factors, combined)
            if len(own) > 1:
                torch._foreach_copy_(own, combined.split([len(part) for part in own]))
        for part in parts.values():
            part.zero_()
        return Operation(buffer, self._stats(gram, agreement, weights) | {"fallback": fallback})

    def _stats(self, gram: np.ndarray, agreement: Tensor, weights: np.ndarray) -> Stats:
        """What is logged of gradients with inner products `gram` (K, K), under `weights` (K,)."""
        of_sum = weights * self.factor(len(gram), "sum")
        removed = 1 - surgery.norm_of(gram, of_sum) / max(surgery.norm_of(gram, np.ones(len(gram))), 1e-30)
        return {"agreement": agreement, "cosine": surgery.mean_cosine(gram), "removed": removed}

    def _weights_or_mean(self, gram: np.ndarray) -> tuple[np.ndarray, float]:
        """The rule's weights (K,) and 0.0; or, where it has none, the mean's on the same scale and 1.0."""
        with suppress(surgery.NoDirection):
            # A training that diverged must not end in an error of a solver, nor leave NaN in a state.
            if np.isfinite(gram).all():
                return self.weights(gram), 0.0
        return np.full(len(gram), 1 / self.factor(len(gram), "sum")), 1.0

    def weights(self, gram: np.ndarray) -> np.ndarray:
        """Weights (K,), float64, on the scale that `scale` says, from inner products (K, K), float64.

        Raises: NoDirection where the method defines none.
        """
        raise NotImplementedError


def _agreeing(gradients: Sequence[Tensor]) -> Tensor:
    """Number of components (0-d) in which K gradients (m,) agree."""
    signs = surgery.agreeing_sum(gradients).sign()
    return signs.dot(signs)


class MGDA(GramSurgery):
    """MGDA (Desideri 2012; Sener & Koltun 2018, arXiv 1810.04650): the shortest convex combination.

    Every environment's loss falls unless none can without another's rising. A direction on the scale of a
    mean, shorter than it. Solved exactly.
    """

    def weights(self, gram: np.ndarray) -> np.ndarray:
        return surgery.mgda_weights(gram)


class CAGrad(GramSurgery):
    """CAGrad (Liu et al. 2021, arXiv 2110.14048): within c |g_0| of the mean gradient g_0, the direction
    that serves the worst-off environment best.

    A direction on the scale of a mean; the authors' code multiplies it by K (`reduction` "sum"). With c = 0
    it is ERM's over equally large minibatches. The step grows by up to 1 + c, unless `cagrad_rescale`
    takes that back.
    """

    HPARAMS = {
        "cagrad_c": Hparam(0.5, uniform(0.1, 0.9), "c, radius around the mean gradient", at_least=0),
        "cagrad_rescale": Hparam(
            "none", const("none"), "divisor: none, one_plus_c (1 + c), one_plus_c2 (1 + c^2)"
        ),
    }

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        check_choice(
            "hyper-parameter cagrad_rescale is",
            hparams["cagrad_rescale"],
            ("none", "one_plus_c", "one_plus_c2"),
        )
        super().__init__(input_shape, num_classes, num_domains, hparams)

    def weights(self, gram: np.ndarray) -> np.ndarray:
        return surgery.cagrad_weights(gram, self.hparams["cagrad_c"], self.hparams["cagrad_rescale"])


class IMTLG(GramSurgery):
    """IMTL-G (Liu et al. 2021, ICLR): the direction with equal projections on all gradients' directions.

    Weights sum to 1, on the scale of a mean, and may be negative. The mean stands in (`fallback`) where
    they would be very large. The loss balancing of the same paper, IMTL-L, is no part of it.
    """

    def weights(self, gram: np.ndarray) -> np.ndarray:
        return surgery.imtlg_weights(gram)


class AlignedMTL(GramSurgery):
    """Aligned-MTL (Senushkin et al., CVPR 2023): the mean of gradients made orthogonal and equally long.

    A direction on the scale of a mean.
    """

    HPARAMS = {
        "aligned_scale": Hparam(
            "min", const("min"), "the common eigenvalue: the smallest (min), median, or mean (rmse)"
        ),
    }

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        check_choice("hyper-parameter aligned_scale is", hparams["aligned_scale"], ("min", "median", "rmse"))
        super().__init__(input_shape, num_classes, num_domains, hparams)

    def weights(self, gram: np.ndarray) -> np.ndarray:
        return surgery.aligned_mtl_weights(gram, self.hparams["aligned_scale"])


class UPGrad(GramSurgery):
    """UPGrad (Quinton & Rey 2024, arXiv 2406.16232): the mean of all gradients, each moved as little as
    it takes for it to conflict with none.

    A direction on the scale of a mean; the mean itself where no two gradients conflict. Solved exactly.
    """

    def weights(self, gram: np.ndarray) -> np.ndarray:
        return surgery.upgrad_weights(gram)


class DualProj(GramSurgery):
    """DualProj, the rule of GEM (Lopez-Paz & Ranzato 2017, arXiv 1706.08840): the mean gradient, moved as
    little as it takes for it to conflict with none.

    A direction on the scale of a mean. Solved exactly.
    """

    def weights(self, gram: np.ndarray) -> np.ndarray:
        return surgery.dual_proj_weights(gram)
