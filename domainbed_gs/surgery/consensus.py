"""Where K gradients agree in sign, component by component (Mansilla et al. 2021, arXiv 2108.01621, 3.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from domainbed.process_group import SINGLE_PROCESS, ProcessGroup

_CONFLICT = 2  # a code beside the signs -1, 0 and 1


@dataclass(frozen=True)
class Consensus:
    """What K gradients agree on, component by component.

    Attributes:
        total: sum of the K gradients (P,).
        agree: Phi, whether all K signs are equal (P,) bool (paper, section 3.2).
        cosine: mean cosine similarity over pairs of environments, 0-d; NaN for one environment.
        num_environments: K.
    """

    total: Tensor
    agree: Tensor
    cosine: Tensor
    num_environments: int

    @property
    def agreement(self) -> Tensor:
        """Share of components that agree, 0-d; 2^(1-K) for random signs."""
        return self.agree.float().mean()


def sign_consensus(
    gradients: Iterable[Tensor], zero_agrees: bool = False, process_group: ProcessGroup = SINGLE_PROCESS
) -> Consensus:
    """Sum and agreement of K gradients (P,), each looked at once.

    Args:
        gradients: consumed one by one; none is kept.
        zero_agrees: whether a component that is 0 in every environment agrees, as the paper's formula
            says read literally. The authors' code, and the default here, counts it as conflict.
        process_group: the processes that have the other gradients of the K; two float tensors of size P are
            summed over them, and two bytes a component tell them of the signs (specification, D.9).
    """
    total = signs = unit_sum = None
    count = 0
    nonzero = torch.zeros(())
    for gradient in gradients:
        count += 1
        sign = gradient.sign().to(torch.int8)
        norm = torch.linalg.vector_norm(gradient, dtype=torch.float64)
        unit = gradient / torch.where(norm > 0, norm, 1).to(gradient.dtype)
        nonzero = nonzero.to(norm.device) + (norm > 0)
        if total is None or signs is None or unit_sum is None:
            total, signs, unit_sum = gradient.clone(), sign, unit
        else:
            total += gradient
            signs = torch.where(signs == sign, signs, _CONFLICT)
            unit_sum += unit
    if total is None or signs is None or unit_sum is None:
        raise ValueError("a consensus needs at least one gradient")
    if process_group.world_size > 1:
        total, unit_sum, nonzero = (
            process_group.sum(total),
            process_group.sum(unit_sum),
            process_group.sum(nonzero),
        )
        signs, count = _common_signs(signs, process_group), process_group.sum_int(count)
    agree = signs != _CONFLICT if zero_agrees else signs.abs() == 1
    # |sum of n unit vectors|^2 = n + 2 * (sum of cosines over pairs); a zero gradient has cosine 0.
    twice_cosines = torch.linalg.vector_norm(unit_sum, dtype=torch.float64).square() - nonzero
    cosine = twice_cosines / (count * (count - 1)) if count > 1 else torch.full_like(twice_cosines, torch.nan)
    return Consensus(total, agree, cosine, count)


def _common_signs(signs: Tensor, process_group: ProcessGroup) -> Tensor:
    """The sign that a component has in all ranks' gradients, or the code of a conflict; (P,) int8."""
    conflict = signs == _CONFLICT
    bounds = torch.stack([torch.where(conflict, 1, signs), torch.where(conflict, 1, -signs)])
    highest, minus_lowest = process_group.max(bounds)
    return torch.where(highest == -minus_lowest, highest, _CONFLICT)


def sign_agreement(gradients: Sequence[Tensor]) -> Tensor:
    """Share of components in which K gradients (P,) have the same sign, not 0; 0-d."""
    signs = gradients[0].sign()
    agree = signs != 0
    for gradient in gradients[1:]:
        agree &= gradient.sign() == signs
    return agree.float().mean()
