"""Random pairs of environments' minibatches, for Mixup and MLDG.

Each function draws one permutation of K from torch's global generator.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import torch

from domainbed.datasets.minibatch import Minibatch

Pairs = list[tuple[Minibatch, Minibatch]]


def random_pairs_of_minibatches(minibatches: Sequence[Minibatch]) -> Pairs:
    """Each minibatch with the next one in a random cyclic order, both cut to the shorter one's length."""
    order = torch.randperm(len(minibatches)).tolist()
    return _cut(minibatches, zip(order, order[1:] + order[:1], strict=True))


def split_meta_train_test(minibatches: Sequence[Minibatch], num_meta_test: int = 1) -> Pairs:
    """Pairs of a meta-train and a meta-test minibatch, both cut to the length of the shorter one.

    `num_meta_test` random environments are meta-test environments. Each of the others is paired with one of
    them, in turn. The list is empty if there are no others.
    """
    order = torch.randperm(len(minibatches)).tolist()
    n_train = max(len(order) - num_meta_test, 0)
    return _cut(minibatches, zip(order[:n_train], itertools.cycle(order[n_train:]), strict=False))


def _cut(minibatches: Sequence[Minibatch], pairs: Iterable[tuple[int, int]]) -> Pairs:
    result: Pairs = []
    for i, j in pairs:
        (xi, yi), (xj, yj) = minibatches[i], minibatches[j]
        n = min(len(xi), len(xj))
        result.append(((xi[:n], yi[:n]), (xj[:n], yj[:n])))
    return result
