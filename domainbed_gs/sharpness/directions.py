"""Loss along random directions whose filters have the lengths of the network's (arXiv 1712.09913)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domainbed_gs.curvature.losses import Loss
from domainbed_gs.curvature.network import ParameterVector
from domainbed_gs.curvature.vectors import gaussian


def filter_normalised(parameters: ParameterVector, counters: tuple[int, ...]) -> Tensor:
    """A random direction (P,): each filter has the norm of the network's filter (Li et al. 2018, section 4).

    A filter is what belongs to one output of a layer: a row of a linear layer's weight. Biases, and weights
    of norms, which have one number for each output, do not change (as in the authors' code).

    Args:
        parameters: the network's parameters.
        counters: counters of the random numbers.
    """
    direction = gaussian(parameters.values, counters)
    weights = parameters.views(parameters.values)
    for name, drawn in parameters.views(direction).items():
        if drawn.dim() < 2:
            drawn.zero_()
            continue
        lengths, wanted = (tensor.flatten(1).norm(dim=1) for tensor in (drawn, weights[name]))
        factors = torch.where(lengths > 0, wanted / lengths, torch.zeros_like(lengths))
        drawn.mul_(factors.view(-1, *[1] * (drawn.dim() - 1)))
    return direction


def losses_along(
    losses: Sequence[Loss],
    parameters: Tensor,
    direction: Tensor,
    distances: Sequence[float],
    advance: Callable[[], None] = lambda: None,
) -> NDArray[np.float64]:
    """Each loss at `parameters` + t `direction`.

    Args:
        losses: L losses.
        parameters: (P,).
        direction: (P,).
        distances: T values of t.
        advance: called after each point.

    Returns: (T, L).
    """
    found = np.empty((len(distances), len(losses)))
    point = torch.empty_like(parameters)
    for row, distance in enumerate(distances):
        torch.add(parameters, direction, alpha=distance, out=point)
        found[row] = [loss.value(point) for loss in losses]
        advance()
    return found
