"""How much a loss rises within a ball around the weights: after one ascent step, and after several."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from domainbed_gs.curvature.losses import Loss
from domainbed_gs.curvature.vectors import norm


@dataclass(frozen=True)
class Ascent:
    """What an ascent on one loss found.

    Attributes:
        value: the loss at the weights.
        gradient_norm: norm of its gradient there.
        one_step: rise of the loss after the first step: L(w + rho g / |g|) - L(w), which SAM minimises
            beside the loss (Foret et al. 2021, equation 2).
        worst: largest rise at any step.
        watched_one_step: rises of the watched losses after the first step.
        watched_worst: their rises at the step with the largest rise of this loss.
    """

    value: float
    gradient_norm: float
    one_step: float
    worst: float
    watched_one_step: tuple[float, ...]
    watched_worst: tuple[float, ...]


def ascend(
    loss: Loss,
    parameters: Tensor,
    rho: float,
    steps: int,
    watched: Sequence[Loss] = (),
    advance: Callable[[], None] = lambda: None,
) -> Ascent:
    """Ascend on `loss` within a ball of radius `rho` around `parameters` (P,).

    Each step has the length `rho` and the direction of the gradient, and is then projected onto the ball. So
    the first one ends on its surface, and for a convex quadratic the steps converge to the highest point. At
    a point without a gradient the ascent stops.

    Args:
        loss: the loss to raise.
        parameters: (P,).
        rho: radius of the ball.
        steps: number of steps, at least 1.
        watched: further losses, measured at the points that this ascent finds.
        advance: called after each step, `steps` times in all.
    """
    start, starts = loss.value(parameters), [each.value(parameters) for each in watched]
    point, gradient = parameters.clone(), torch.empty_like(parameters)
    first_norm = 0.0
    first = worst = _Point(0.0, tuple(0.0 for _ in watched))
    stopped = False
    for step in range(steps):
        if not stopped:
            loss.add_gradient(point, gradient.zero_())
            length = norm(gradient)
            first_norm = length if step == 0 else first_norm
            stopped = length == 0
        if not stopped:
            point.add_(gradient, alpha=rho / length)
            _project(point, parameters, rho, gradient)
            rise = loss.value(point) - start
            if step == 0 or rise > worst.rise or math.isnan(rise):
                of_watched = zip(watched, starts, strict=True)
                worst = _Point(rise, tuple(each.value(point) - before for each, before in of_watched))
            first = worst if step == 0 else first
        advance()
    return Ascent(start, first_norm, first.rise, worst.rise, first.of_watched, worst.of_watched)


class _Point(NamedTuple):
    """Rises at a point of an ascent."""

    rise: float
    of_watched: tuple[float, ...]


def _project(point: Tensor, centre: Tensor, rho: float, spare: Tensor) -> None:
    """Move `point` onto the ball of radius `rho` around `centre` if it is outside; overwrites `spare`."""
    torch.sub(point, centre, out=spare)
    distance = norm(spare)
    if distance > rho or not math.isfinite(distance):
        torch.add(centre, spare, alpha=rho / distance, out=point)
