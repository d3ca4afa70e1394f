"""Sums over samples of one layer's per-sample gradients and of their squares, without a gradient held whole.

A linear layer's gradient of one sample is an outer product b a^T, so the sums are products of the samples'
factors, which are kept instead. In other layers the gradients of a few samples at a time are made in blocks
of components, and added to sums of the layer's size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from domainbed.gradients.recording import LayerPass
from domainbed_gs.similarity.layers import factors, per_sample_gradients

BLOCK = 2**20
"""Components of a block at most, unless one output has more inputs, or outputs are in groups."""

Moments = Mapping[str, Tensor]
"""By name: "mean", "variance" and "fisher" of the same components (m,)."""


class LayerSums(Protocol):
    """Sums over the samples of a group, which are added in chunks."""

    def add(self, layer_pass: LayerPass) -> None:
        """Add the gradients of the losses of a chunk of samples."""

    def add_fisher(self, layer_pass: LayerPass) -> None:
        """Add to the Fisher information of the chunk that was added last.

        Each sample's gradient is that of the loss of one class, times the root of the class's probability.
        """

    def moments(self, count: int) -> Iterator[Moments]:
        """Moments over the `count` samples that were added, for blocks of components in the layer's order."""


def layer_sums(layer_pass: LayerPass, with_fisher: bool) -> LayerSums:
    """Empty sums for the layer of `layer_pass`."""
    pair = factors(layer_pass)
    if pair is not None and pair[0].shape[3] == 1 and "weight" in layer_pass.parameters:
        return _FactorSums("bias" in layer_pass.parameters, with_fisher)
    return _GradientSums(with_fisher)


class _FactorSums:
    """Of a layer whose weight has one outer product for each sample."""

    def __init__(self, has_bias: bool, with_fisher: bool) -> None:
        self._has_bias = has_bias
        self._with_fisher = with_fisher
        self._a: list[Tensor] = []  # (n, G, p) of each chunk
        self._b: list[Tensor] = []  # (n, G, q)
        self._fisher: list[Tensor] = []  # sums over classes of b^2 (n, G, q)

    def add(self, layer_pass: LayerPass) -> None:
        a, b = _factors(layer_pass)
        self._a.append(a)
        self._b.append(b)
        self._fisher.append(torch.zeros_like(b))

    def add_fisher(self, layer_pass: LayerPass) -> None:
        self._fisher[-1] += _factors(layer_pass)[1].square()

    def moments(self, count: int) -> Iterator[Moments]:
        a, b, fisher = (torch.cat(each) for each in (self._a, self._b, self._fisher))
        squares = a.square()
        rows = _rows(a, b)
        for of_b, of_fisher in zip(b.split(rows, dim=2), fisher.split(rows, dim=2), strict=True):
            first = _outer(of_b, a)
            yield self._named(first, _outer(of_b.square(), squares), _outer(of_fisher, squares), count)
        if self._has_bias:
            yield self._named(b.sum(0), b.square().sum(0), fisher.sum(0), count)

    def _named(self, first: Tensor, second: Tensor, fisher: Tensor, count: int) -> Moments:
        return _moments(first, second, fisher if self._with_fisher else None, count)


class _GradientSums:
    """Of any other layer."""

    def __init__(self, with_fisher: bool) -> None:
        self._with_fisher = with_fisher
        self._first: list[Tensor] = []  # (m,) of each block
        self._second: list[Tensor] = []
        self._fisher: list[Tensor] = []

    def add(self, layer_pass: LayerPass) -> None:
        for number, block in enumerate(_gradients(layer_pass)):
            _add(self._first, number, block.sum(0))
            _add(self._second, number, block.square_().sum(0))

    def add_fisher(self, layer_pass: LayerPass) -> None:
        for number, block in enumerate(_gradients(layer_pass)):
            _add(self._fisher, number, block.square_().sum(0))

    def moments(self, count: int) -> Iterator[Moments]:
        for number, (first, second) in enumerate(zip(self._first, self._second, strict=True)):
            yield _moments(first, second, self._fisher[number] if self._with_fisher else None, count)


def _moments(first: Tensor, second: Tensor, fisher: Tensor | None, count: int) -> Moments:
    """Moments from sums over `count` samples; the variance is biased, as Fishr's."""
    mean = first.flatten() / count
    found = {"mean": mean, "variance": second.flatten() / count - mean.square()}
    return found if fisher is None else {**found, "fisher": fisher.flatten() / count}


def _factors(layer_pass: LayerPass) -> tuple[Tensor, Tensor]:
    pair = factors(layer_pass)
    assert pair is not None
    return pair[0].squeeze(3), pair[1].squeeze(3)


def _outer(b: Tensor, a: Tensor) -> Tensor:
    """Sum over samples of b a^T, (G, q, p)."""
    return torch.einsum("ngq,ngp->gqp", b, a)


def _gradients(layer_pass: LayerPass) -> Iterator[Tensor]:
    """Per-sample gradients (n, m), in blocks of components, which the caller may overwrite."""
    pair = factors(layer_pass)
    if pair is None:
        yield per_sample_gradients(layer_pass)
        return
    a, b = pair
    if "weight" in layer_pass.parameters:
        for rows in b.split(_rows(a, b), dim=2):
            yield torch.einsum("ngqt,ngpt->ngqp", rows, a).flatten(1)
    if "bias" in layer_pass.parameters:
        yield b.sum(3).flatten(1)


def _rows(a: Tensor, b: Tensor) -> int:
    """How many outputs make a block; all of them if they are in groups, so that components stay in order."""
    return b.shape[2] if a.shape[1] > 1 else max(1, BLOCK // a.shape[2])


def _add(sums: list[Tensor], number: int, value: Tensor) -> None:
    if number == len(sums):
        sums.append(value)
    else:
        sums[number] += value
