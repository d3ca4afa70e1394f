"""Optimizers by name with the settings that all algorithms share, and one descent step."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn, optim

from domainbed.errors import UsageError, misspelt
from domainbed.escaping import shortened
from domainbed.hparams import OPTIONS, Hparam, const, option
from domainbed.process_group import SINGLE_PROCESS, ProcessGroup

# Left out of torch.optim: LBFGS evaluates the loss several times in a step, Rprop is for full batches,
# SparseAdam for sparse gradients, Muon for matrices only.
NAMES = (
    "Adam",
    "AdamW",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adamax",
    "ASGD",
    "NAdam",
    "RAdam",
    "RMSprop",
)
"""Values of the hyper-parameter `optimizer`: classes of torch.optim."""

OPTIONS["optimizer"] = Hparam("Adam", const("Adam"), "optimizer of torch.optim, by name", choices=NAMES)
OPTIONS["momentum"] = Hparam(
    0.9, const(0.9), "momentum of SGD", at_least=0, below=1, only_if=("optimizer", "SGD")
)
OPTIONS["optimizer_options"] = Hparam(
    "", const(""), 'further options of the optimizer, such as "nesterov=True" or "betas=(0.5, 0.9)"'
)

CHOICE = ("optimizer", "momentum", "optimizer_options")
"""The hyper-parameters that choose the optimizer."""

BETAS = (0.9, 0.999)

_FUSED = ("Adam", "AdamW")
_FUSED_DEVICES = ("cpu", "cuda")
_OF_RUNS = ("params", "lr", "weight_decay")  # hyper-parameters of the run
_OF_IMPLEMENTATION = ("foreach", "fused", "capturable", "differentiable", "maximize")


@dataclass(frozen=True)
class OptimizerChoice:
    """A class of torch.optim and its options.

    Attributes:
        name: one of `NAMES`.
        options: keyword arguments of the class, without learning rate and weight decay.
    """

    name: str = "Adam"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def accepted(self) -> list[str]:
        """Names of the options that the class takes."""
        parameters = inspect.signature(getattr(optim, self.name)).parameters
        return [name for name in parameters if name not in (*_OF_RUNS, *_OF_IMPLEMENTATION)]

    def build(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = BETAS,
    ) -> optim.Optimizer:
        """A new optimizer over `parameters`, of which there may be none, such as those of a frozen network.

        Args:
            parameters: what to optimise.
            lr: learning rate.
            weight_decay: decoupled for AdamW, else as the class has it, usually coupled.
            betas: used if the class takes `betas` and `options` has none.
        """
        parameters = list(parameters)
        keywords = {"lr": lr, "weight_decay": weight_decay, **self.options}
        if "betas" in self.accepted:
            keywords.setdefault("betas", betas)
        if self.name in _FUSED:  # takes a fifth of the time for large networks
            keywords["fused"] = all(each.device.type in _FUSED_DEVICES for each in parameters)
        groups = [{"params": parameters}]  # a list of parameters may not be empty, a group may
        optimizer: optim.Optimizer = getattr(optim, self.name)(groups, **keywords)
        return optimizer

    def describes(self, optimizer: optim.Optimizer) -> bool:
        """Whether `optimizer` is of this class and has these options."""
        return type(optimizer) is getattr(optim, self.name) and all(
            optimizer.defaults.get(name) == value for name, value in self.options.items()
        )


def adam(
    parameters: Iterable[nn.Parameter],
    lr: float,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = BETAS,
    decoupled: bool = False,
) -> optim.Optimizer:
    """A new Adam, or AdamW if weight decay is `decoupled`, whatever optimizer the run chooses.

    An algorithm's own optimizers are `Algorithm.optimizer_over`'s; this is for other ones.
    """
    return OptimizerChoice("AdamW" if decoupled else "Adam").build(parameters, lr, weight_decay, betas)


def chosen(hparams: Mapping[str, Any], own: Container[str] = ()) -> OptimizerChoice:
    """The optimizer that a run's hyper-parameters choose: Adam by default.

    Args:
        hparams: values of hyper-parameters, by name.
        own: names that the algorithm declares itself. They mean what it says, and choose nothing here.

    Raises: UsageError for options that the optimizer does not take.
    """
    visible = {name: hparams[name] for name in CHOICE if name in hparams and name not in own}
    name, text = str(option(visible, "optimizer")), str(option(visible, "optimizer_options"))
    momentum = float(option(visible, "momentum")) if name == "SGD" else None
    return _choice(name, text, momentum)


@functools.cache
def _choice(name: str, text: str, momentum: float | None) -> OptimizerChoice:
    options = _parsed(text)
    for key in options:
        if key in _OF_RUNS or (momentum is not None and key == "momentum"):
            raise UsageError(
                f"optimizer_options cannot set {key}: it is a hyper-parameter of its own or the algorithm's"
            )
        accepted = OptimizerChoice(name).accepted
        if key not in accepted:
            listed = ", ".join(accepted)
            raise misspelt(f"optimizer {name} has no option {key!r}, but {listed}", key, accepted)
    if momentum is not None:
        options["momentum"] = momentum
    choice = OptimizerChoice(name, options)
    if text:
        _try(choice)
    return choice


def _parsed(text: str) -> dict[str, Any]:
    """Keyword arguments as Python writes them."""
    try:
        call = ast.parse(f"options({text})", mode="eval").body
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args:
            options = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
            if len(options) == len(call.keywords) and all(each.arg for each in call.keywords):
                return options
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        pass
    raise UsageError(
        "hyper-parameter optimizer_options takes options as Python writes them, such as "
        f'"nesterov=True, dampening=0.0", not {shortened(text)!r}'
    )


def _try(choice: OptimizerChoice) -> None:
    """Raise UsageError if torch refuses the options, by two steps of one parameter."""
    parameter = nn.Parameter(torch.zeros(1, device="cpu"))
    parameter.grad = torch.zeros_like(parameter)
    try:
        optimizer = choice.build([parameter], lr=1e-3)
        for _ in range(2):  # the first step of some ignores options
            optimizer.step()
    except Exception as error:  # torch raises almost anything for a value of a wrong type
        text = " ".join(str(error).split())
        raise UsageError(f"optimizer {choice.name} refuses optimizer_options: {text}") from None


def optimizers_of(owner: object) -> Iterator[tuple[str, optim.Optimizer]]:
    """Attribute's name and optimizer, for each optimizer in an attribute, or in a container that is one."""
    for name, value in vars(owner).items():
        items: Iterable[object] = [value]
        if isinstance(value, list | tuple):
            items = value
        elif isinstance(value, dict):
            items = value.values()
        yield from ((name, each) for each in items if isinstance(each, optim.Optimizer))


def scale(optimizer: optim.Optimizer, factor: float) -> None:
    """Set the learning rate of each group of parameters to its first one times `factor`.

    The first one becomes the group's entry `initial_lr`, as with torch's schedulers.
    """
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def refuse_unused(choice: OptimizerChoice, given: Iterable[str], algorithm: object) -> None:
    """Raise UsageError if `choice` was given, but `algorithm` has no such optimizer.

    Args:
        choice: the chosen optimizer.
        given: names in `CHOICE` that the run sets.
        algorithm: the algorithm, with its optimizers.
    """
    names = list(given)
    if names and not any(choice.describes(each) for _, each in optimizers_of(algorithm)):
        kind = type(algorithm).__name__
        raise UsageError(
            f"hyper-parameter {names[0]!r} has no effect in this run, because {kind} builds its optimizers "
            f"itself; leave it out, or build them by self.optimizer_over(parameters, lr=...) in {kind}"
        )


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
