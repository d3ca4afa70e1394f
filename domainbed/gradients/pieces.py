"""The gradients of K environments by some components of the parameters.

A piece is made in blocks that fit into a cache, and some pieces are never made as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from domainbed.gradients.vectors import total

_BLOCK = 2**20  # numbers in a block of K gradients on a CPU: 4 MB in float32, which a cache holds
_BLOCK_ON_DEVICE = 2**26


class PieceGradients(Protocol):
    """Gradients of the K environments by M components, on their device."""

    def blocks(self) -> Iterator[tuple[int, list[Tensor]]]:
        """Yield (start, K gradients (m,)) of consecutive blocks of components that cover all M.

        A block is valid until the next one is asked for.
        """

    def gram(self) -> Tensor:
        """Inner products (K, K) in float64."""

    def write(self, weights: Tensor, out: Tensor) -> None:
        """Write sum_k w_k g_k into `out` (M,); `weights` (K,) float64."""


@dataclass(frozen=True)
class Span:
    """Components of one parameter, at the positions `start` to `stop` (exclusive) of the flat vector (P,)."""

    start: int
    stop: int


@dataclass(frozen=True)
class Piece:
    """The K environments' gradients by some components.

    Attributes:
        spans: the components, one span after the other.
        gradients: the gradients by them.
    """

    spans: Sequence[Span]
    gradients: PieceGradients

    @property
    def size(self) -> int:
        """M, the number of components."""
        return sum(span.stop - span.start for span in self.spans)

    @property
    def contiguous(self) -> slice | None:
        """The positions as one slice of the flat vector, or None if there are gaps between the spans."""
        joined = all(a.stop == b.start for a, b in pairwise(self.spans))
        return slice(self.spans[0].start, self.spans[-1].stop) if joined else None

    def gather(self, vector: Tensor) -> Tensor:
        """The piece's components (M,) of a flat vector (P,)."""
        positions = self.contiguous
        if positions is not None:
            return vector[positions]
        return torch.cat([vector[span.start : span.stop] for span in self.spans])

    @contextmanager
    def target(self, vector: Tensor) -> Iterator[Tensor]:
        """Memory (M,) for the piece's components. What it holds at the end is in the flat `vector` (P,)."""
        positions = self.contiguous
        if positions is not None:
            yield vector[positions]
            return
        values = vector.new_empty(self.size)
        yield values
        self.scatter(values, vector)

    def scatter(self, values: Tensor, out: Tensor) -> None:
        """Write the piece's components `values` (M,) to their positions in `out` (P,)."""
        parts = values.split([span.stop - span.start for span in self.spans])
        torch._foreach_copy_([out[span.start : span.stop] for span in self.spans], list(parts))


class Rows(PieceGradients):
    """K gradients (M,) that exist in memory."""

    def __init__(self, rows: Sequence[Tensor]) -> None:
        self.rows = rows

    def blocks(self) -> Iterator[tuple[int, list[Tensor]]]:
        size = _block_size(self.rows[0], len(self.rows))
        for start in range(0, max(1, len(self.rows[0])), size):  # of no components, one empty block
            yield start, [row[start : start + size] for row in self.rows]

    def gram(self) -> Tensor:
        return _gram_of_blocks(self)

    def write(self, weights: Tensor, out: Tensor) -> None:
        # In blocks, so that `out` is read again from a cache. On the device: nothing waits for the weights.
        factors = weights.to(out.dtype).unbind()
        for start, rows in self.blocks():
            part = out[start : start + len(rows[0])]
            torch.mul(rows[0], factors[0], out=part)
            for row, factor in zip(rows[1:], factors[1:], strict=True):
                part.addcmul_(row, factor)


class OuterProducts(PieceGradients):
    """K gradients of a linear layer's weight: sums over an environment's rows of outer products b a^T.

    Args:
        outputs: gradients by the layer's outputs b (R, C), one environment's rows after another's.
        inputs: the layer's inputs a (R, F), of the same dtype.
        sizes: number of rows of each of the K environments.
        dtype: of the parameter.
    """

    def __init__(self, outputs: Tensor, inputs: Tensor, sizes: Sequence[int], dtype: torch.dtype) -> None:
        self._outputs, self._inputs, self._sizes, self._dtype = outputs, inputs, list(sizes), dtype

    def blocks(self) -> Iterator[tuple[int, list[Tensor]]]:
        classes, features = self._outputs.shape[1], self._inputs.shape[1]
        rows = min(max(1, _block_size(self._inputs, len(self._sizes)) // features), classes)
        outputs, inputs = self._batched()
        memory = self._inputs.new_empty(len(outputs) * rows * features)
        for start in range(0, classes, rows):
            part = outputs[:, start : start + rows]
            shape = len(part), part.shape[1], features
            block = memory[: math.prod(shape)].view(shape)
            torch.bmm(part, inputs, out=block)
            yield start * features, list(block.view(len(block), -1).to(self._dtype).unbind())

    def _batched(self) -> tuple[Tensor, Tensor]:
        """b^T (K, C, n) and a (K, n, F); environments with fewer than n rows get rows of zeros.

        One product of K matrices takes half the time of K products: with so few rows each writes far more
        than it computes.
        """
        if len(set(self._sizes)) == 1:
            shape = len(self._sizes), -1
            return self._outputs.unflatten(0, shape).mT, self._inputs.unflatten(0, shape)
        outputs, inputs = self._outputs.split(self._sizes), self._inputs.split(self._sizes)
        return pad_sequence(outputs, batch_first=True).mT, pad_sequence(inputs, batch_first=True)

    def gram(self) -> Tensor:
        rows, k = len(self._inputs), len(self._sizes)
        classes, features = self._outputs.shape[1], self._inputs.shape[1]
        if rows**2 * (classes + features) > k * (k + rows) * classes * features:
            return _gram_of_blocks(self)
        # <b a^T, b' a'^T> = <b, b'> <a, a'>, summed over the rows of each pair of environments.
        a, b = self._inputs.double(), self._outputs.double()
        ones = [torch.ones(1, n, dtype=a.dtype, device=a.device) for n in self._sizes]
        sums = torch.block_diag(*ones)
        gram: Tensor = sums @ ((a @ a.T) * (b @ b.T)) @ sums.T
        return gram

    def write(self, weights: Tensor, out: Tensor) -> None:
        of_rows = weights.to(self._outputs.dtype).repeat_interleave(
            torch.tensor(self._sizes, device=weights.device), output_size=len(self._outputs)
        )
        scaled = self._outputs * of_rows[:, None]
        target = out.view(self._outputs.shape[1], self._inputs.shape[1])
        if target.dtype == scaled.dtype:
            torch.mm(scaled.T, self._inputs, out=target)
        else:
            target.copy_(scaled.T @ self._inputs)


def _block_size(like: Tensor, num_environments: int) -> int:
    """Number of components of a block."""
    numbers = _BLOCK if like.device.type == "cpu" else _BLOCK_ON_DEVICE
    return max(1, numbers // num_environments)


def _gram_of_blocks(gradients: PieceGradients) -> Tensor:
    """Inner products from the blocks, in float64: over millions of terms float32 could change a sign."""
    return total(inner_products([row.double() for row in rows]) for _, rows in gradients.blocks())


def inner_products(gradients: Sequence[Tensor]) -> Tensor:
    """Inner products (K, K) of K gradients (m,), on a CPU computed in their dtype; float64."""
    k = len(gradients)
    if gradients[0].device.type != "cpu":
        matrix = torch.stack(list(gradients)).double()  # a device may round float32 products to TF32
        return matrix @ matrix.T
    # One by one: CPU libraries multiply a matrix of few long rows by its transpose ten times slower.
    pairs = [(i, j) for i in range(k) for j in range(i, k)]
    products = torch.stack([gradients[i].dot(gradients[j]) for i, j in pairs]).double()
    gram = products.new_empty(k, k)
    rows, columns = zip(*pairs, strict=True)
    gram[rows, columns] = gram[columns, rows] = products
    return gram
