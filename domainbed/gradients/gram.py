"""Gram rules: the combined gradient is sum_k w_k g_k, and w depends on the gradients' inner products alone.

Inner products are float64: in float32 the error over tens of millions of terms can flip the sign of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from domainbed.gradients.comparison import Combined, any_is_zero, signs_agree
from domainbed.gradients.compilation import compiled
from domainbed.gradients.pieces import Piece
from domainbed.process_group import ProcessGroup

Weights = Callable[[np.ndarray], np.ndarray]
"""Maps inner products (K, K), float64, to weights (K,), float64."""


_MULTIPLE = 2**11  # of the rounding of one component
_PRODUCTS = 2**4  # of the rounding of an inner product
_MOST = 2**-4  # half types: angles above 4 degrees are never taken for rounding


def length_tolerance(dtype: torch.dtype, size: int) -> float:
    """Length below which a combination of unit gradients may be rounding alone.

    The greater of 2^11 times the rounding of a component, and of the root of 2^4 times that of an inner
    product of P terms in float64; at most 1/16. In float32 it is 2.4e-4, in float64 1e-6 for P = 2000.

    A change of the gradients by their rounding changes a rule by about rounding / tolerance, 1/2048, if the
    rule passes from its formula to its limit while such a length grows by a factor of its own order.

    Args:
        dtype: of the gradients.
        size: P.
    """
    of_products = _PRODUCTS * np.finfo(np.float64).eps * size**0.5
    return float(min(max(_MULTIPLE * torch.finfo(dtype).eps, of_products**0.5), _MOST))


class NoDirection(ArithmeticError):
    """A rule defines no update for these gradients."""


def combine_by_weights(
    pieces: Iterator[Piece],
    rule: Weights,
    fallback: float,
    scale: float,
    out: Tensor,
    compile_count: bool,
    group: ProcessGroup,
) -> Combined:
    """Apply a Gram rule.

    Gradients of linear layers are never made as a whole; the others stay in memory until w is known.

    Args:
        pieces: of all P components, or of this process's shard of them.
        rule: gives the weights; raises `NoDirection` where it defines none.
        fallback: each weight where the rule defines none, or an inner product is not finite.
        scale: factor on the weights.
        out: where the combined gradient (P,) is written.
        compile_count: whether signs are counted by compiled code.
        group: the processes that share the update.
    """
    count = compiled(_count_signs) if compile_count else _count_signs
    kept, grams, counts = [], [], []
    for piece in pieces:
        kept.append(piece)
        grams.append(piece.gradients.gram())
        counts += [count(gradients) for _, gradients in piece.gradients.blocks()]
    gram = group.sum(torch.stack(grams).sum(0))
    agreeing, zeros = group.sum(torch.stack(counts).double().sum(0))
    on_host = gram.cpu().numpy()  # the one copy that an update waits for
    weights, fell_back = _weights_or(rule, on_host, fallback)
    weights *= scale
    # Those of gradients of 1e-40 do not fit into float32, and infinity times 0 would be NaN.
    factors = torch.from_numpy(weights).clamp(*_range(out.dtype)).to(out.device)
    while kept:
        piece = kept.pop()  # its memory is freed with it
        with piece.target(out) as target:
            piece.gradients.write(factors, target)
    norm = torch.tensor(norm_of(on_host, weights), dtype=torch.float64)
    gradient = group.gather_shards(out[group.shard(len(out))], len(out))
    return Combined(gradient, torch.from_numpy(on_host), agreeing, zeros, norm, fallback=fell_back)


def _range(dtype: torch.dtype) -> tuple[float, float]:
    """Least and greatest finite number."""
    limits = torch.finfo(dtype)
    return limits.min, limits.max


def norm_of(gram: np.ndarray, weights: np.ndarray) -> float:
    """|sum_k w_k g_k| from inner products (K, K) and weights (K,)."""
    with np.errstate(invalid="ignore"):  # NaN for gradients that are not finite
        return float(np.sqrt(max(weights @ gram @ weights, 0.0)))


def _weights_or(rule: Weights, gram: np.ndarray, fallback: float) -> tuple[np.ndarray, bool]:
    """The rule's weights (K,) and False, or `fallback` for each environment and True."""
    # A training that diverged must end with its own message, and leave no NaN in the state of a rule.
    if np.isfinite(gram).all():
        try:
            return np.array(rule(gram), dtype=np.float64), False
        except NoDirection:
            pass
    return np.full(len(gram), fallback), True


def _count_signs(gradients: list[Tensor]) -> Tensor:
    """Number of components that agree in sign, and of those that are 0 in an environment; (2,)."""
    return torch.stack([signs_agree(gradients).sum(), any_is_zero(gradients).sum()])
