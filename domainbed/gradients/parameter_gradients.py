"""One parameter's gradients in K environments, made in pieces that fit into a cache, or never made at all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

_AT_ONCE = 2**20  # numbers at a time, of K gradients together: 4 MB, which a cache holds
_AT_ONCE_ON_DEVICE = 2**26


class ParameterGradients(Protocol):
    """Gradients of K environments' losses by M components of parameters, on their device."""

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Start and gradients (K, m) of consecutive components, all M in turn; each may be overwritten."""

    def gram(self) -> Tensor:
        """Inner products (K, K) in float64."""

    def write(self, weights: Tensor, out: Tensor) -> None:
        """Write sum_k w_k g_k into `out` (M,); `weights` (K,)."""


class Held:
    """Gradients that are there as a matrix (K, M)."""

    SMALL: ClassVar[int] = 2**18
    """Components of small parameters that are best looked at together."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        size = _block(self.matrix, len(self.matrix))
        for start in range(0, self.matrix.shape[1], size):
            yield start, self.matrix[:, start : start + size]

    def gram(self) -> Tensor:
        return _gram(self)

    def write(self, weights: Tensor, out: Tensor) -> None:
        torch.mv(self.matrix.T, weights.to(out.dtype), out=out)


class Outer:
    """Gradients of a linear layer's weight: sums over an environment's rows of outer products b a^T.

    Args:
        outputs: gradients by the layer's outputs b (R, C); rows of one environment after those of another.
        inputs: the layer's inputs a (R, F), of the same type.
        sizes: number of rows of each of the K environments.
        dtype: of the parameter.
    """

    def __init__(self, outputs: Tensor, inputs: Tensor, sizes: Sequence[int], dtype: torch.dtype) -> None:
        self._outputs, self._inputs, self._sizes, self._dtype = outputs, inputs, list(sizes), dtype

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        classes, features = self._outputs.shape[1], self._inputs.shape[1]
        rows = min(max(1, _block(self._inputs, len(self._sizes)) // features), classes)
        outputs, inputs = self._batched()
        made = self._inputs.new_empty(len(outputs) * rows * features)
        for start in range(0, classes, rows):
            part = outputs[:, start : start + rows]
            shape = len(part), part.shape[1], features
            block = made[: math.prod(shape)].view(shape)
            torch.bmm(part, inputs, out=block)
            yield start * features, block.view(len(block), -1).to(self._dtype)

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
        rows, wide = len(self._inputs), len(self._sizes)
        classes, features = self._outputs.shape[1], self._inputs.shape[1]
        if rows**2 * (classes + features) > wide * (wide + rows) * classes * features:
            return _gram(self)
        # <b a^T, b' a'^T> = <b, b'> <a, a'>: sums of blocks of (rows, rows) (specification, D.6).
        a, b = self._inputs.double(), self._outputs.double()
        ends = torch.block_diag(*(torch.ones(1, n, dtype=a.dtype) for n in self._sizes)).to(a.device)
        gram: Tensor = ends @ ((a @ a.T) * (b @ b.T)) @ ends.T
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


def _block(like: Tensor, num_environments: int) -> int:
    """Components at a time."""
    numbers = _AT_ONCE if like.device.type == "cpu" else _AT_ONCE_ON_DEVICE
    return max(1, numbers // num_environments)


def _gram(gradients: ParameterGradients) -> Tensor:
    """Inner products from the blocks; in float64, in float32 a sum over so many could change its sign."""
    gram = None
    for _, block in gradients.blocks():
        rows = block.double()
        gram = rows @ rows.T if gram is None else gram.addmm_(rows, rows.T)
    assert gram is not None
    return gram
