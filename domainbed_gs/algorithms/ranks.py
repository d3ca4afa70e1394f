"""Shared by rules that need the rank of the gradients: no one rank is right where rounding decides it.

Such a rule jumps where a singular value becomes 0. So its answer here is the mean of its answers over all
tolerances in a range (logarithmically uniform): the rule itself where every singular value is above the
range, the rule with one dimension less where one is below, and in between a mixture that changes slowly.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from domainbed_gs.algorithms.active_sets import unit_gram

_WIDTH = 8  # greatest tolerance over the least
_GRADED = 2**12 * np.finfo(np.float64).eps  # of the longest: shorter gradients are lost in float64
_GRADED_WIDTH = 16


def numerical_ranks(gram: np.ndarray, tolerance: float) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """The K gradients' matrix for each rank that it may have, as singular values and axes.

    Whether gradients are dependent is a matter of their directions, so the tolerances are for the singular
    values of the unit gradients. Independent ones may be of any lengths, down to 1e-11 of the longest. Where
    some are dependent, the rounding of these hides gradients that are shorter than it: then the tolerances
    are for the singular values of the gradients, too.

    Args:
        gram: inner products (K, K) float64, finite.
        tolerance: the least tolerance; see `domainbed.gradients.gram.length_tolerance`.

    Yields: the rank's share (the shares' sum is 1), singular values (r,) in descending order, and right
        singular vectors (K, r) of the matrix with the gradients as columns. Nothing if all are zero.
    """
    unit = unit_gram(gram)
    given = np.flatnonzero(~unit.zero)
    if len(given) == 0:
        return
    squares, vectors = np.linalg.eigh(unit.cosines[np.ix_(given, given)])
    values, directions = np.sqrt(squares[::-1].clip(min=0.0)), vectors[:, ::-1]
    for rank, share in _shares(values, tolerance, _WIDTH):
        # Vectors of length r, as columns, whose inner products are those of the gradients of this rank.
        columns = np.zeros((rank, len(gram)))
        columns[:, given] = values[:rank, None] * directions[:, :rank].T * unit.norms[given]
        _, lengths, right = np.linalg.svd(columns, full_matrices=False)
        limits = (_GRADED, _GRADED_WIDTH) if rank == len(given) else (tolerance, _WIDTH)
        for kept, part in _shares(lengths / lengths[0], *limits):
            yield share * part, lengths[:kept], right[:kept].T


def trust(length: float, tolerance: float) -> float:
    """How sure it is that a length is more than rounding: from 0 at the tolerance to 1 at 8 times that."""
    return float(_trust(np.array(length), tolerance, _WIDTH))


def _trust(values: np.ndarray, low: float, width: float) -> np.ndarray:
    """Share of the tolerances, logarithmically uniform from `low` to `width` times that, below each value."""
    shares: np.ndarray = np.log(np.maximum(values, low) / low) / np.log(width)
    return shares.clip(max=1.0)


def _shares(values: np.ndarray, low: float, width: float) -> list[tuple[int, float]]:
    """Ranks and their shares of the tolerances, for singular values in descending order."""
    above = _trust(values, low, width)
    above[0] = 1.0
    shares = above - np.append(above[1:], 0.0)
    return [(rank, share) for rank, share in enumerate(shares.tolist(), 1) if share > 0]
