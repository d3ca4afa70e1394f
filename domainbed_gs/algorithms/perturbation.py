"""Gradients at perturbed weights, as pure functions of any losses of any parameters.

A gradient is a flat tensor (P,). Sections are those of the gradient surgery specification.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from domainbed.gradients.domain_gradients import flat, loss_and_gradient, set_values

LossOf = Callable[[], Tensor]
Parameters = Sequence[nn.Parameter]

_TINY = 1e-12  # added to norms; the public codes' number


@contextlib.contextmanager
def restored(parameters: Parameters) -> Iterator[Tensor]:
    """Give the parameters' values (P,), and put them back at the end, to the bit."""
    values = flat(parameters)
    try:
        yield values
    finally:
        set_values(parameters, values)


def sam_step(gradient: Tensor, rho: float) -> Tensor:
    """Ascent of length rho along the gradient (B.14)."""
    return gradient * (rho / (_norm(gradient) + _TINY))


def asam_step(gradient: Tensor, weights: Tensor, rho: float) -> Tensor:
    """Ascent along weights^2 * gradient, of length rho where lengths are relative to the weights (B.14)."""
    return weights.square() * gradient * (rho / (_norm(weights * gradient) + _TINY))


def sagm_step(gradient: Tensor, rho: float, alpha: float) -> Tensor:
    """SAM's ascent less alpha times the gradient (B.16)."""
    return gradient * (rho / (_norm(gradient) + _TINY) - alpha)


def gsam_gradient(gradient: Tensor, perturbed: Tensor, alpha: float) -> Tensor:
    """The perturbed gradient less alpha times the part of `gradient` that is orthogonal to it (B.15)."""
    along = torch.sum(gradient * perturbed, dtype=torch.float64) / (_norm(perturbed).square() + _TINY**2)
    return perturbed - alpha * (gradient - along * perturbed)


def _norm(vector: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(vector, dtype=torch.float64)
    return norm


class TwoPoints(NamedTuple):
    """What there is to know at the weights and at the perturbed weights.

    Attributes:
        loss: ascent loss at the weights, 0-d.
        gradient: its gradient (P,).
        perturbed_loss: descent loss at the perturbed weights, 0-d.
        perturbed_gradient: its gradient (P,).
    """

    loss: Tensor
    gradient: Tensor
    perturbed_loss: Tensor
    perturbed_gradient: Tensor


def two_points(
    ascent: LossOf, descent: LossOf, parameters: Parameters, step_of: Callable[[Tensor, Tensor], Tensor]
) -> TwoPoints:
    """Gradient at the weights, and gradient after a step from there; the weights are as before in the end.

    Args:
        ascent: loss whose gradient decides on the step.
        descent: loss to differentiate after it.
        parameters: what to differentiate by.
        step_of: the step (P,) that belongs to the gradient (P,) and the weights (P,).
    """
    loss, gradient = loss_and_gradient(ascent, parameters)
    with restored(parameters) as weights:
        set_values(parameters, weights + step_of(gradient, weights))
        return TwoPoints(loss, gradient, *loss_and_gradient(descent, parameters))


def gradual_ascent(losses_of: Sequence[LossOf], parameters: Parameters, rho: float) -> Iterator[Tensor]:
    """DGSAM's walk (B.17): gradients at phi_0 = theta, phi_1, ...

    Args:
        losses_of: which loss to look at on each point; K + 1 of them, the first once more in the end.
        parameters: what to differentiate by; as before when the walk is over.
        rho: length of the ascent along each gradient; after the last there is none.

    Yields: the gradient (P,) on each point.
    """
    with restored(parameters):
        for loss_of in losses_of[:-1]:
            _, gradient = loss_and_gradient(loss_of, parameters)
            yield gradient
            set_values(parameters, flat(parameters) + sam_step(gradient, rho))
        yield loss_and_gradient(losses_of[-1], parameters)[1]


def dgsam_gradient(losses_of: Sequence[LossOf], parameters: Parameters, rho: float) -> Tensor:
    """K / (K + 1) times the sum of the gradients (P,) on the walk (B.17): of the scale of a sum over K."""
    total = torch.zeros_like(flat(parameters))
    for gradient in gradual_ascent(losses_of, parameters, rho):
        total += gradient
    return total * ((len(losses_of) - 1) / len(losses_of))
