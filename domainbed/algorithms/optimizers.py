"""Adam with the settings all algorithms share, and one descent step."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn, optim

from domainbed.process_group import SINGLE_PROCESS, ProcessGroup

_FUSED_DEVICES = ("cpu", "cuda")


def adam(
    parameters: Iterable[nn.Parameter],
    lr: float,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    decoupled: bool = False,
) -> optim.Adam:
    """A new Adam, or AdamW if weight decay is `decoupled`.

    It is fused on devices that support it, which takes a fifth of the time for large networks. There may be
    no parameters, such as those of a frozen network.
    """
    parameters = list(parameters)
    fused = all(parameter.device.type in _FUSED_DEVICES for parameter in parameters)
    optimizer_class = optim.AdamW if decoupled else optim.Adam
    groups = [{"params": parameters}]  # a list of parameters may not be empty, a group may
    return optimizer_class(groups, lr=lr, weight_decay=weight_decay, betas=betas, fused=fused)


def descend(loss: Tensor, *optimizers: optim.Optimizer, process_group: ProcessGroup = SINGLE_PROCESS) -> None:
    """Take one step of each of `optimizers` along the gradient of `loss`, summed over `process_group`.

    Parameters that `loss` does not depend on have no gradient, and stay unchanged. Does nothing if there are
    no parameters, such as those of a frozen network.
    """
    if not any(group["params"] for optimizer in optimizers for group in optimizer.param_groups):
        return
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for optimizer in optimizers:
        process_group.sum_gradients(optimizer)
        optimizer.step()
