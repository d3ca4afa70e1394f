"""Long vectors of which few numbers are kept, whose inner products can still be told.

A count sketch (Charikar, Chen and Farach-Colton 2002): components get random signs, and are added to `size`
numbers. Inner products of sketches are unbiased estimates of those of the vectors. The squared distance of
two vectors has a relative standard error of at most sqrt(2 / size): 0.2 % with `SIZE` numbers. A vector that
is not longer is kept as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domainbed.seeds import counter_seed
from domainbed_gs.curvature.vectors import signs
from domainbed_gs.trained_models.samples import StudyPurpose

SIZE = 2**19
"""Numbers that are kept of a vector: 2 MiB in float32."""


class CompressedVector:
    """A vector (P,), made of pieces that are appended one after the other.

    It is linear in the components, whatever the lengths of the pieces.

    Args:
        components: P.
        like: a tensor of the dtype and on the device of the pieces.
        size: largest number of numbers that are kept.

    Attributes:
        values: (min(P, size),).
    """

    def __init__(self, components: int, like: Tensor, size: int = SIZE) -> None:
        self._size = size
        self._exact = components <= size
        self._length = 0
        self.values = like.new_zeros(min(components, size))

    def append(self, piece: Tensor) -> None:
        """Append the components `piece`, of any shape."""
        rest = piece.reshape(-1)
        while len(rest):
            number, start = divmod(self._length, self._size)
            part, rest = rest[: self._size - start], rest[self._size - start :]
            if self._exact:
                self.values[start : start + len(part)] = part
            else:
                self._add(part, number, start)
            self._length += len(part)

    def _add(self, part: Tensor, number: int, start: int) -> None:
        """Add components of segment `number`, which has random signs and is shifted by a random distance."""
        counters = (StudyPurpose.SKETCH, number)
        signed = part * signs(self.values, counters)[start : start + len(part)]
        place = (start + counter_seed(*counters)) % self._size
        before_end = signed[: self._size - place]
        self.values[place : place + len(before_end)] += before_end
        wrapped = signed[len(before_end) :]
        self.values[: len(wrapped)] += wrapped


def gram(vectors: Sequence[Tensor]) -> NDArray[np.float64]:
    """Inner products (G, G) of G vectors, summed in float64."""
    total = torch.zeros(len(vectors), len(vectors), dtype=torch.float64, device=vectors[0].device)
    for start in range(0, len(vectors[0]), SIZE):
        rows = torch.stack([vector[start : start + SIZE] for vector in vectors]).double()
        total += rows @ rows.T
    found: NDArray[np.float64] = total.cpu().numpy()
    return found
