"""Normalised distances of pairs of environments, from the inner products of their groups' vectors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

GROUPS = 2
"""Groups of samples of each environment."""


def pairs_of(environments: int) -> Iterator[tuple[int, int]]:
    """Positions of all pairs of environments, then each environment with itself."""
    yield from itertools.combinations(range(environments), 2)
    yield from ((each, each) for each in range(environments))


def kind_of_pair(first: int, second: int, is_target: Sequence[bool]) -> str:
    """One of `settings.PAIRS`."""
    roles = sorted(("source", "target")[is_target[each]] for each in (first, second))
    return f"within-{roles[0]}" if first == second else "-".join(roles)


def distance(gram: NDArray[np.float64], first: int, second: int) -> tuple[float, float]:
    """Normalised squared distance of two environments' vectors, and the squared norms that normalise it.

    With groups u of one environment and v of the other it is

        sum |u - v|^2 / sum (|u|^2 + |v|^2)

    over all pairs of groups: 0 for equal vectors, 1 for orthogonal ones, 2 for opposite ones. Of one
    environment with itself it is that of its two groups: what the finite number of samples alone makes.

    Args:
        gram: inner products (G, G); rows 2k and 2k+1 are the groups of environment k.
        first, second: positions of the environments.

    Returns: the distance, NaN if the norms are not positive; and the mean of |u|^2 + |v|^2.
    """
    if first == second:
        groups = [(GROUPS * first, GROUPS * first + 1)]
    else:
        groups = [(GROUPS * first + i, GROUPS * second + j) for i in range(GROUPS) for j in range(GROUPS)]
    squares = gram.diagonal()
    norms = sum(float(squares[i] + squares[j]) for i, j in groups)
    between = sum(float(squares[i] + squares[j] - 2 * gram[i, j]) for i, j in groups)
    return (between / norms if norms > 0 else math.nan), norms / len(groups)
