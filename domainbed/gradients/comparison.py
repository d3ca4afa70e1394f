"""How far the gradients of K environments agree: signs, cosines, and what combining them removes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Tensor


def signs_agree(gradients: Sequence[Tensor]) -> Tensor:
    """1 where K gradients (m,) have the same sign, not 0, and 0 elsewhere; (m,), of their dtype.

    In floats, because passes over memory that make or read booleans take several times as long.
    """
    lowest, highest = reduce(torch.minimum, gradients), reduce(torch.maximum, gradients)
    return torch.maximum(lowest, -highest).relu().sign()


def any_is_zero(gradients: Sequence[Tensor]) -> Tensor:
    """1 where at least one of K gradients (m,) is 0, and 0 elsewhere; (m,), of their dtype.

    Units that no sample of a minibatch activates have gradients of exactly 0, which agree with no sign.
    """
    return 1 - reduce(torch.minimum, [each.abs() for each in gradients]).sign()


def agreement_by_chance(num_environments: int, zeros: float) -> float:
    """Expected share of components with the same sign in all K environments, if signs are independent.

    Args:
        num_environments: K.
        zeros: share of components that are 0 in at least one environment.
    """
    return (1 - zeros) * 2.0 ** (1 - num_environments)


def cosines(gram: Tensor) -> Tensor:
    """Cosine similarities (K, K) of gradients, from their inner products (K, K); 0 with a zero gradient."""
    norms = gram.diagonal().clamp_min(0).sqrt()
    lengths = norms.outer(norms)
    return torch.where(lengths > 0, gram / lengths, 0)


def mean_cosine(gram: Tensor) -> Tensor:
    """Mean cosine similarity over pairs of gradients, from their inner products (K, K); 0-d.

    A pair with a zero gradient counts as 0. NaN for K = 1.
    """
    k = len(gram)
    return cosines(gram).fill_diagonal_(0).sum() / (k * (k - 1) or float("nan"))


@dataclass
class Combined:
    """The combined gradient of one update, and what was measured on the way, on its device.

    Attributes:
        gradient: (P,).
        gram: inner products (K, K) of the environments' gradients, float64.
        agreeing: number of components where all K signs are equal and not 0; 0-d.
        zeros: number of components that are 0 in at least one environment; 0-d.
        norm: of `gradient`; 0-d, float64.
        magnitude: sum of the absolute values of `gradient`, of a componentwise rule; 0-d, float64.
        weights: each component's weight (P,), of a componentwise rule that gives one.
        fallback: whether a Gram rule defines no direction here, so that the mean stands in.
        logged: numbers for the records, by name.
    """

    gradient: Tensor
    gram: Tensor
    agreeing: Tensor
    zeros: Tensor
    norm: Tensor
    magnitude: Tensor | None = None
    weights: Tensor | None = None
    fallback: bool = False
    logged: dict[str, Tensor | float] = field(default_factory=dict)

    @property
    def num_environments(self) -> int:
        """K."""
        return len(self.gram)

    @property
    def agreement(self) -> Tensor:
        """Share of components where all K signs are equal and not 0; 0-d. See `agreement_by_chance`."""
        return self.agreeing / len(self.gradient)

    @property
    def zero_share(self) -> Tensor:
        """Share of components that are 0 in at least one environment; 0-d."""
        return self.zeros / len(self.gradient)

    @property
    def cosine(self) -> Tensor:
        """Mean cosine similarity over pairs of environments; 0-d."""
        return mean_cosine(self.gram)

    def removed(self, scale: float) -> Tensor:
        """1 - |scale * gradient| / |sum_k g_k|; 0-d. `scale` is K if `gradient` is on the scale of a mean."""
        norm_of_sum = self.gram.sum().clamp_min(0).sqrt()
        return 1 - scale * self.norm / norm_of_sum.clamp_min(1e-30)
