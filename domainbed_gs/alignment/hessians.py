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
from contextlib import AbstractContextManager
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
"""Blocks of layers that random vectors are restricted to, or a few more."""


@dataclass(frozen=True)
class Layer:
    """One layer of a network.

    Attributes:
        name: its name.
        count: number of its trained parameters.
        covered: for each kind of diagonals, whether it covers the layer.
    """

    name: str
    count: int
    covered: tuple[bool, ...]


Opened = AbstractContextManager[tuple[Sequence[Loss], Tensor]]
"""G losses with the Hessians R, as functions of the parameters of a block; and the values (m,) of these."""


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
    layers: Sequence[Layer],
    open_block: Callable[[Sequence[Layer]], Opened],
    fisher: Sequence[Sequence[Tensor]],
    probes: int,
    counters: tuple[int, ...],
    advance: Callable[[], None] = lambda: None,
    size: int = SIZE,
) -> list[NDArray[np.float64]]:
    """Inner products of estimates of the Hessians' diagonals, from n random vectors; see `without_bias`.

    Args:
        layers: all layers, in the order of the components of `fisher`.
        open_block: makes the losses of some of the layers.
        fisher: for each kind, the G compressed diagonals of F.
        probes: n, at least 2.
        counters: counters of the random vectors.
        advance: called n times for each block.
        size: numbers that are kept of each diagonal (`CompressedVector`).

    Returns: for each kind (n, n, G, G), where [i, j] are the products of the estimates from vector i with
        those from vector j.
    """
    vectors = [
        [
            [CompressedVector(_components(layers, kind), like, size) for like in of_groups]
            for kind, of_groups in enumerate(fisher)
        ]
        for _ in range(probes)
    ]
    for number, block in enumerate(blocks_of(layers)):
        with open_block(block) as (losses, parameters):
            z, product = torch.empty_like(parameters), torch.empty_like(parameters)
            for probe, of_probe in enumerate(vectors):
                for segment, part in enumerate(z.split(SIZE)):
                    part.copy_(signs(part, (*counters, probe, number, segment)))
                for position, loss in enumerate(losses):
                    loss.add_hessian_product(parameters, z, product.zero_())
                    own = [of_kind[position] for of_kind in of_probe]
                    _append(own, block, product.mul_(z))
                advance()
            del z, product
    grams = []
    for kind, of_groups in enumerate(fisher):
        for of_probe in vectors:
            for vector, known in zip(of_probe[kind], of_groups, strict=True):
                vector.values += known
        shape = (probes, len(of_groups), probes, len(of_groups))
        found = gram([vector.values for of_probe in vectors for vector in of_probe[kind]])
        grams.append(found.reshape(shape).swapaxes(1, 2))
    return grams


def _components(layers: Sequence[Layer], kind: int) -> int:
    return sum(layer.count for layer in layers if layer.covered[kind])


def _append(vectors: Sequence[CompressedVector], block: Sequence[Layer], estimate: Tensor) -> None:
    """Append the estimate for the parameters of a block to the vectors of the kinds that cover its layers."""
    parts = estimate.split([layer.count for layer in block])
    for layer, part in zip(block, parts, strict=True):
        for vector, covered in zip(vectors, layer.covered, strict=True):
            if covered:
                vector.append(part)


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


def blocks_of(layers: Sequence[Layer]) -> Iterator[list[Layer]]:
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
