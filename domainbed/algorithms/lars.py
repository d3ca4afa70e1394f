"""LARS: momentum SGD whose step is scaled to the size of each layer's weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling (You et al. 2017, arXiv 1708.03888), without a closure.

    A gradient g of a parameter p with two or more dimensions becomes g + weight_decay * p, and is then scaled
    by trust_coefficient * |p| / |g|; biases and the parameters of norms get neither.

    Args:
        params: parameters, or groups of them.
        lr: learning rate; a number or a 0-d tensor.
        weight_decay: coupled (L2) weight decay.
        momentum: of the buffer mu <- momentum * mu + g, which starts as 0.
        trust_coefficient: length of a step of lr 1 relative to that of the weights.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 0,
        weight_decay: float = 0,
        momentum: float = 0.9,
        trust_coefficient: float = 0.001,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "trust_coefficient": trust_coefficient,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override] # upstream's takes no closure
        """One step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad
                if parameter.dim() > 1:
                    gradient = gradient + group["weight_decay"] * parameter
                    gradient = gradient * _trust(parameter, gradient, group["trust_coefficient"])
                state = self.state[parameter]
                if "mu" not in state:
                    state["mu"] = torch.zeros_like(parameter)
                state["mu"].mul_(group["momentum"]).add_(gradient)
                parameter.sub_(group["lr"] * state["mu"])


def _trust(parameter: Tensor, gradient: Tensor, coefficient: float) -> Tensor:
    """What to scale the gradient by (0-d): 1 where it or the parameter is zero."""
    weight, slope = parameter.norm(), gradient.norm()
    return torch.where((weight > 0) & (slope > 0), coefficient * weight / slope, torch.ones_like(weight))
