"""Per-environment gradients by a pass for each: K of them with the arithmetic of one ERM step.

One forward and one backward pass for each environment on its own minibatch need no more arithmetic than
one step on the concatenated minibatches (gradient surgery specification, D.4 and D.8). Batch norm in
training mode therefore sees one environment at a time, which is what the gradient of an environment's own
loss means; dropout draws its masks for each environment. `joint_pass` is faster, where it will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from domainbed.datasets.minibatch import Minibatch

LossOf = Callable[[Tensor, Tensor], Tensor]


def environment_gradients(
    loss_of: LossOf,
    minibatches: Sequence[Minibatch],
    parameters: Sequence[nn.Parameter],
    seeds: Sequence[int],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Loss and gradient of each environment in turn; a gradient is made when it is asked for.

    Args:
        loss_of: loss (0-d) of inputs and labels.
        minibatches: one an environment.
        parameters: what to differentiate by; one without a gradient in an environment counts as 0.
        seeds: what torch's global generators are seeded with before each environment's loss.

    Yields: (L_k, g_k): 0-d, detached; and (P,), flat in the order of `parameters`.
    """
    for (x, y), seed in zip(minibatches, seeds, strict=True):
        torch.manual_seed(seed)
        yield loss_and_gradient(partial(loss_of, x, y), parameters)


def loss_and_gradient(
    loss_of: Callable[[], Tensor], parameters: Sequence[nn.Parameter]
) -> tuple[Tensor, Tensor]:
    """A loss (0-d, detached) and its gradient (P,); a parameter that has none counts as 0."""
    loss = loss_of()
    gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
    return loss.detach(), torch.cat([gradient.flatten() for gradient in gradients])


def flat(parameters: Sequence[nn.Parameter]) -> Tensor:
    """The parameters' values as one tensor (P,), a copy."""
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


def set_gradient(parameters: Sequence[nn.Parameter], gradient: Tensor) -> None:
    """Make the flat `gradient` (P,) the `.grad` of the parameters (views of it, no copy)."""
    for parameter, part in zip(parameters, _parts(parameters, gradient), strict=True):
        parameter.grad = part


def set_values(parameters: Sequence[nn.Parameter], values: Tensor) -> None:
    """Copy the flat `values` (P,) into the parameters."""
    with torch.no_grad():
        for parameter, part in zip(parameters, _parts(parameters, values), strict=True):
            parameter.copy_(part)


def _parts(parameters: Sequence[nn.Parameter], values: Tensor) -> list[Tensor]:
    """Views of the flat `values` in the parameters' shapes."""
    split = values.split([parameter.numel() for parameter in parameters])
    return [part.view_as(parameter) for parameter, part in zip(parameters, split, strict=True)]
