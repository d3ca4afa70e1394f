"""Agr-Sum and Agr-Rand (Mansilla et al. 2021, arXiv 2108.01621, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from domainbed_gs.surgery.consensus import Consensus


def agr_sum(consensus: Consensus) -> Tensor:
    """Agr-Sum (P,): the summed gradient where all environments agree, 0 elsewhere (section 3.3)."""
    return torch.where(consensus.agree, consensus.total, 0)


def agr_rand_sigma(kept: Tensor, agree: Tensor, sizes: Sequence[int] | None = None) -> Tensor:
    """Standard deviation of Agr-Rand's noise: mean |sum_k g_k| over the agreeing components.

    Args:
        kept: Agr-Sum's gradient (P,).
        agree: where the environments agree (P,) bool.
        sizes: lengths of parts (they sum to P) that get a sigma each; None for one over all.

    Returns: 0-d, or (P,) with `sizes`. 0 where none agrees (the authors' code gives NaN there).
    """
    if sizes is None:
        return kept.abs().sum() / agree.sum().clamp_min(1)
    parts = zip(kept.split(list(sizes)), agree.split(list(sizes)), strict=True)
    sigmas = torch.stack([agr_rand_sigma(values, mask) for values, mask in parts])
    return sigmas.repeat_interleave(torch.tensor(sizes, device=kept.device))


def agr_rand(kept: Tensor, agree: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
    """Agr-Rand (P,): Agr-Sum's gradient, with Normal(0, sigma^2) where the environments disagree."""
    noise = torch.randn(kept.shape, generator=generator, dtype=kept.dtype, device=kept.device)
    return torch.where(agree, kept, sigma * noise)
