"""Inner products of the diagonals of several Hessians, from the same random vectors for all.

The Hessian of a mean cross-entropy is F + R: with J the Jacobian of the logits and p the predictions, the
Fisher information F is the mean of J^T (diag p - p p^T) J, and R that of sum_c (p - y)_c times the Hessian of
logit c (Schraudolph 2002). The diagonal of F is exact here. That of R is estimated by random signs z: the
expectation of z * Rz is the diagonal (Bekas, Kokiopoulou and Saad 2007). Each z is restricted to a few layers
in turn. If the logits are linear in each layer's parameters alone, as with ReLU and frozen batch norm, that
makes the estimate exact: then both diagonals are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from domainbed_gs.alignment.compressed import SIZE, CompressedVector, gram
from domainbed_gs.curvature.losses import MOST_SAMPLES, Loss
from domainbed_gs.curvature.vectors import signs

MOST_BLOCKS = 16
"""Blocks of layers that random vectors are restricted to, unless `covered` needs more."""


@dataclass(frozen=True)
class Layer:
    """Components of one layer in the vector of all parameters.

    Attributes:
        start, stop: first component, and the one after the last.
        covered: for each kind of diagonals, whether it covers the layer.
    """

    start: int
    stop: int
    covered: tuple[bool, ...]


def residual_targets(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Targets y - p (N, C), with which the cross-entropy is sum_c (p - y)_c logit_c: its Hessian is R.

    The targets of a sample sum to 0, so that the logarithm of the softmax's denominator has the factor 0.

    Args:
        network: maps inputs to logits (B, C).
        x: inputs (N, ...).
        y: int64 labels (N,).
    """
    with torch.no_grad():
        chunks = [network(each) for each in x.split(max(1, min(MOST_SAMPLES, 2**20 // x[0].numel())))]
    logits = torch.cat(chunks)
    return F.one_hot(y, logits.shape[1]).to(logits.dtype) - logits.softmax(1)


def hessian_grams(
    residuals: Sequence[Loss],
    fisher: Sequence[Sequence[Tensor]],
    parameters: Tensor,
    layers: Sequence[Layer],
    probes: int,
    counters: tuple[int, ...],
    advance: Callable[[], None] = lambda: None,
    size: int = SIZE,
) -> list[NDArray[np.float64]]:
    """Inner products of estimates of the Hessians' diagonals, from n random vectors; see `without_bias`.

    Args:
        residuals: G losses with the Hessians R.
        fisher: for each kind, the G compressed diagonals of F, whose components are those of its layers.
        parameters: (P,).
        layers: the layers in the order of these components.
        probes: n, at least 2.
        counters: counters of the random vectors.
        advance: called after each of n times G estimates.
        size: numbers that are kept of each diagonal (`CompressedVector`).

    Returns: for each kind (n, n, G, G), where [i, j] are the products of the estimates from vector i with
        those from vector j.
    """
    kinds = range(len(fisher))
    components = [sum(each.stop - each.start for each in layers if each.covered[kind]) for kind in kinds]
    product, z = torch.empty_like(parameters), torch.zeros_like(parameters)
    found: list[list[Tensor]] = [[] for _ in kinds]
    for number in range(probes):
        for position, loss in enumerate(residuals):
            vectors = [CompressedVector(count, parameters, size) for count in components]
            for layer, piece in _estimates(loss, parameters, z, product, layers, (*counters, number)):
                for vector, covered in zip(vectors, layer.covered, strict=True):
                    if covered:
                        vector.append(piece)
            for kind in kinds:
                found[kind].append(vectors[kind].values.add_(fisher[kind][position]))
            advance()
    shape = (probes, len(residuals), probes, len(residuals))
    return [gram(vectors).reshape(shape).swapaxes(1, 2) for vectors in found]


def without_bias(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inner products (G, G) of diagonals, from those of n estimates of each (n, n, G, G), n at least 2.

    Products of estimates from two different random vectors have no bias, so the mean over all pairs of
    different ones has none. So a squared distance can be estimated below 0.
    """
    n = len(products)
    found: NDArray[np.float64] = products.sum(axis=(0, 1)) - np.einsum("iigh->gh", products)
    return found / (n * (n - 1))


def jackknife_error(
    products: NDArray[np.float64], statistic: Callable[[NDArray[np.float64]], float]
) -> float:
    """Standard error of `statistic` of `without_bias(products)`, by leaving out one vector at a time.

    NaN for fewer than three vectors.
    """
    n = len(products)
    if n < 3:
        return math.nan
    kept = [np.delete(np.arange(n), each) for each in range(n)]
    values = np.array([statistic(without_bias(products[np.ix_(own, own)])) for own in kept])
    return float(np.sqrt((n - 1) * values.var()))


def _estimates(
    loss: Loss,
    parameters: Tensor,
    z: Tensor,
    product: Tensor,
    layers: Sequence[Layer],
    counters: tuple[int, ...],
) -> Iterator[tuple[Layer, Tensor]]:
    """Pieces of z * Rz (m,) with their layers, from one random vector; `z` is zero before and after."""
    for block in _blocks(layers):
        for layer in block:
            for number, part in enumerate(z[layer.start : layer.stop].split(SIZE)):
                part.copy_(signs(part, (*counters, layer.start, number)))
        loss.add_hessian_product(parameters, z, product.zero_())
        for layer in block:
            own = slice(layer.start, layer.stop)
            for part, of_product in zip(z[own].split(SIZE), product[own].split(SIZE), strict=True):
                yield layer, of_product.mul_(part)
                part.zero_()


def _blocks(layers: Sequence[Layer]) -> Iterator[list[Layer]]:
    """Consecutive layers that the same kinds cover, in `MOST_BLOCKS` blocks or a few more."""
    length = -(-len(layers) // MOST_BLOCKS)
    block: list[Layer] = []
    for layer in layers:
        if block and (len(block) == length or block[-1].covered != layer.covered):
            yield block
            block = []
        block.append(layer)
    if block:
        yield block
