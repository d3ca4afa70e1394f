"""Agr-Sum and Agr-Rand (Mansilla et al. 2021, arXiv 2108.01621, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from domainbed.gradients.fused import fused
from domainbed.gradients.noise import normal_noise
from domainbed_gs.surgery.consensus import Consensus


def agr_sum(consensus: Consensus) -> Tensor:
    """Agr-Sum (P,): the summed gradient where all environments agree, 0 elsewhere (section 3.3)."""
    return torch.where(consensus.agree, consensus.total, 0)


def agreeing_sum(gradients: Sequence[Tensor]) -> Tensor:
    """Agr-Sum (m,) of K gradients (m,), bit for bit as from a consensus, in passes over floats alone.

    A component agrees if the smallest of its values is above 0 or the largest below. Passes that make masks
    take several times as long.
    """
    low = high = total = gradients[0]
    for gradient in gradients[1:]:
        low, high, total = torch.minimum(low, gradient), torch.maximum(high, gradient), total + gradient
    gate = torch.maximum(low, -high)
    kept: Tensor = torch.ops.aten.threshold_backward(total, gate, 0)  # total where gate > 0, else 0
    return kept


def magnitudes(kept: Tensor, agree: Tensor, sizes: Sequence[int]) -> Tensor:
    """Sum of |values| and number of the agreeing components of each tensor: (number of tensors, 2) float64.

    Args:
        kept: Agr-Sum's gradient (P,).
        agree: where the environments agree (P,) bool.
        sizes: number of components of each tensor; they sum to P.
    """
    parts = zip(kept.split(list(sizes)), agree.split(list(sizes)), strict=True)
    return torch.stack([torch.stack([values.abs().sum(), mask.sum()]).double() for values, mask in parts])


def agr_rand_sigma(magnitudes: Tensor) -> Tensor:
    """Standard deviation of Agr-Rand's noise: mean |sum_k g_k| over the agreeing components.

    Args:
        magnitudes: see the function of that name; of one tensor (2,), or of each of some (n, 2).

    Returns: 0-d, or (n,). 0 where none agrees (the authors' code gives NaN there).
    """
    return magnitudes[..., 0] / magnitudes[..., 1].clamp_min(1)


def agr_rand(kept: Tensor, agree: Tensor | None, sigma: Tensor, seed: int, fuse: bool = False) -> Tensor:
    """Agr-Rand (P,): Agr-Sum's gradient, with Normal(0, sigma^2) where the environments disagree.

    Args:
        kept: Agr-Sum's gradient (P,), which is overwritten.
        agree: where the environments agree (P,) bool; None for wherever `kept` is not 0.
        sigma: 0-d, or for each component (P,).
        seed: of the noise.
        fuse: whether compiled functions may be used.
    """
    sigma = sigma.to(kept.dtype)
    add = fused(_add_noise) if fuse else _add_noise
    for start, noise in normal_noise(kept, seed):
        part = slice(start, start + len(noise))
        add(
            kept[part],
            None if agree is None else agree[part],
            noise,
            sigma if sigma.dim() == 0 else sigma[part],
        )
    return kept


def _add_noise(kept: Tensor, agree: Tensor | None, noise: Tensor, sigma: Tensor) -> None:
    """Add `noise` (m,), which may be changed, times `sigma` where the environments disagree."""
    if agree is None:
        # Passes over floats only, as in `agreeing_sum`: noise where -|kept| is above the threshold.
        kind = torch.finfo(kept.dtype)
        smallest = kind.smallest_normal * kind.eps  # above 0
        noise = torch.ops.aten.threshold_backward(noise, kept.abs().neg_(), -smallest)
    else:
        noise = torch.where(agree, 0, noise)
    kept += noise.mul_(sigma)
