"""Parameters and their gradients as one flat vector of P components."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import accumulate

import torch
from torch import Tensor, nn

BLOCK = 2**12
"""Components of a vector that are summed in its own dtype."""


class Layout:
    """Where each parameter's components lie in the flat vector (P,): one parameter after the other.

    Attributes:
        sizes: number of components of each parameter.
        starts: position of each parameter's first component.
        size: P.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.sizes = [parameter.numel() for parameter in parameters]
        *self.starts, self.size = accumulate(self.sizes, initial=0)


def total(tensors: Iterable[Tensor]) -> Tensor:
    """Sum of one or more tensors of one shape."""
    return reduce(operator.add, tensors)


def flat(parameters: Sequence[nn.Parameter]) -> Tensor:
    """The parameters' values (P,), copied."""
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


def set_gradient(parameters: Sequence[nn.Parameter], gradient: Tensor) -> None:
    """Make the flat `gradient` (P,) the `.grad` of the parameters: views of it, not copies."""
    for parameter, part in zip(parameters, _parts(parameters, gradient), strict=True):
        parameter.grad = part


def set_values(parameters: Sequence[nn.Parameter], values: Tensor) -> None:
    """Copy the flat `values` (P,) into the parameters."""
    with torch.no_grad():
        for parameter, part in zip(parameters, _parts(parameters, values), strict=True):
            parameter.copy_(part)


def add_to_values(parameters: Sequence[nn.Parameter], direction: Tensor, scale: Tensor) -> None:
    """Add `scale` (0-d) times the flat `direction` (P,) to the parameters, without another vector of P."""
    factor = scale.to(direction.dtype)
    with torch.no_grad():
        for parameter, part in zip(parameters, _parts(parameters, direction), strict=True):
            parameter.addcmul_(part, factor)


def norm(vector: Tensor) -> Tensor:
    """Euclidean norm of a vector (P,) (0-d, float64): of blocks in the vector's dtype, then of their norms.

    One float32 sum over tens of millions of components loses digits. A float64 copy takes 40 times as long.
    """
    whole = len(vector) // BLOCK * BLOCK
    blocks, rest = vector[:whole].reshape(-1, BLOCK), vector[whole:]
    norms = torch.cat([torch.linalg.vector_norm(blocks, dim=1), torch.linalg.vector_norm(rest)[None]])
    length: Tensor = torch.linalg.vector_norm(norms.double())
    return length


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of two vectors (P,) (0-d), in float64 without float64 copies of them."""
    size = copied(a.device)
    return total(x.double() @ y.double() for x, y in zip(a.split(size), b.split(size), strict=True))


def copied(device: torch.device) -> int:
    """Components that are copied to float64 at a time: on a CPU the copy should fit into the cache."""
    return 2**16 if device.type == "cpu" else 2**24


def _parts(parameters: Sequence[nn.Parameter], values: Tensor) -> list[Tensor]:
    """Views of the flat `values` in the parameters' shapes."""
    split = values.split(Layout(parameters).sizes)
    return [part.view_as(parameter) for parameter, part in zip(parameters, split, strict=True)]
