"""How much the environments' gradients agree, learnt while a joint pass makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from domainbed.gradients.blockwise import Blockwise
from domainbed.gradients.joint_pass import JointPass
from domainbed.gradients.parameter_gradients import ParameterGradients


@dataclass(frozen=True)
class Similarity:
    """What the inner products (K, K) of K gradients say, on their device.

    Attributes:
        cosine: mean cosine similarity over pairs, 0 with a zero gradient, NaN for K = 1; 0-d.
        sum_norm: norm of the sum of the gradients; 0-d, above 0.
    """

    cosine: Tensor
    sum_norm: Tensor


def similarity(gram: Tensor) -> Similarity:
    """See `Similarity`; `gram` (K, K) float64."""
    count = len(gram)
    norms = gram.diagonal().clamp_min(0).sqrt()
    lengths = norms.outer(norms)
    cosines = torch.where(lengths > 0, gram / lengths, 0).fill_diagonal_(0)
    # 0 / 0 is NaN, which a mean over no pairs should be.
    return Similarity(
        cosines.sum() / (count * (count - 1) or float("nan")), gram.sum().clamp_min(0).sqrt().clamp_min(1e-30)
    )


def run_blockwise(joint: JointPass, blocks: Blockwise) -> tuple[Tensor, Similarity]:
    """The backward pass, with its gradients given to `blocks`; returns its sums."""
    products: list[Tensor] = []

    def visit(positions: Sequence[int], gradients: ParameterGradients) -> None:
        products.append(gradients.gram())
        blocks(positions, gradients)

    joint.backward(visit)
    return blocks.finish(), similarity(torch.stack(products).sum(0))
