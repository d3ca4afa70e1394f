"""Pairs of environments' minibatches, for Mixup and MLDG. One draw each from torch's global generator."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from domainbed.algorithms.base import Minibatch

Pairs = list[tuple["Minibatch", "Minibatch"]]


def random_pairs_of_minibatches(minibatches: Sequence[Minibatch]) -> Pairs:
    """Each minibatch with its neighbour on a random circle; both cut to the shorter one's length."""
    circle = torch.randperm(len(minibatches)).tolist()
    return _cut(minibatches, zip(circle, circle[1:] + circle[:1], strict=True))


def split_meta_train_test(minibatches: Sequence[Minibatch], num_meta_test: int = 1) -> Pairs:
    """Random pairs of a meta-train and a meta-test minibatch, both cut to the shorter one's length.

    `num_meta_test` environments are for meta-test, each of the others is paired with one of them in turn;
    no pair if none is left.
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
