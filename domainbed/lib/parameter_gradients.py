"""One parameter's gradients in K environments, made in pieces that fit into a cache, or never made at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor

_BLOCK = 2**18  # components at a time; K of these and their temporaries stay in the cache
_BLOCK_ON_DEVICE = 2**24


class ParameterGradients(Protocol):
    """Gradients of K environments' losses by M components of parameters, on their device."""

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Start and gradients (K, m) of consecutive components, all M in turn; each may be overwritten."""

    def gram(self) -> Tensor:
        """Inner products (K, K) in float64."""

    def write(self, weights: Tensor, out: Tensor) -> None:
        """Write sum_k w_k g_k into `out` (M,); `weights` (K,)."""


class Held:
    """Gradients that are there as a matrix (K, M); up to `SMALL` components are one block."""

    SMALL: ClassVar[int] = _BLOCK

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        size = _block(self.matrix)
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
        rows = min(max(1, _block(self._inputs) // features), classes)
        parts = list(zip(self._outputs.split(self._sizes), self._inputs.split(self._sizes), strict=True))
        made = self._inputs.new_empty(len(parts), rows, features)
        for start in range(0, classes, rows):
            block = made[:, : min(rows, classes - start)]
            for (outputs, inputs), gradient in zip(parts, block, strict=True):
                torch.mm(outputs[:, start : start + rows].T, inputs, out=gradient)
            yield start * features, block.reshape(len(parts), -1).to(self._dtype)

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


def _block(tensor: Tensor) -> int:
    return _BLOCK if tensor.device.type == "cpu" else _BLOCK_ON_DEVICE


def _gram(gradients: ParameterGradients) -> Tensor:
    """Inner products from the blocks; in float64, in float32 a sum over so many could change its sign."""
    gram = None
    for _, block in gradients.blocks():
        rows = block.double()
        gram = rows @ rows.T if gram is None else gram.addmm_(rows, rows.T)
    assert gram is not None
    return gram
