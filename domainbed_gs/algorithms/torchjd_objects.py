"""Objects of TorchJD by name: how they are written, built, placed on a device, saved and restored."""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim

from domainbed.errors import UsageError, misspelt

PREFIX = "torchjd:"
"""Start of an object's name."""

_SIZES = ("shape", "n_tasks")
"""Parameters whose value is K unless they are given."""

_REMEMBERED = (
    *("_state_key", "_n_steps"),
    *("_previous_averages", "_loss_sum", "_n_batches"),  # DWA
    "_prev_losses",  # FAMO
    *("prvs_alpha", "step", "normalization_factor"),  # NashMTL
)
"""Plain attributes in which TorchJD's classes keep state."""

_OWN_OPTIMIZER = "_optimizer"
"""Attribute of FAMO with its Adam, which is made at its first update."""


@dataclass(frozen=True)
class Sort:
    """A sort of TorchJD's classes.

    Attributes:
        word: what messages call one.
        module: where they are.
        base: name of their base class.
        example: how one with arguments is written.
    """

    word: str
    module: str
    base: str
    example: str


AGGREGATORS = Sort(
    "aggregator", "torchjd.aggregation", "Aggregator", f"{PREFIX}ConFIG or {PREFIX}TrimmedMean(trim_number=1)"
)
SCALARIZERS = Sort(
    "scalarizer", "torchjd.scalarization", "Scalarizer", f"{PREFIX}DWA or {PREFIX}STCH(mu=0.1)"
)


class TorchJDObject:
    """An aggregator or scalarizer of TorchJD with all that it remembers, for checkpoints.

    `state_dict` of the object itself does not do: buffers that are made at the first call cannot be loaded
    into a new object, and attributes beside them make it start anew. Here every module's buffers, parameters,
    remembered attributes and optimizer are saved.

    Args:
        text: "torchjd:NAME" or "torchjd:NAME(key=value, ...)". A list among the values becomes a tensor. A
            value may be an object of the same sort of library, NAME or NAME(key=value, ...).
        sort: `AGGREGATORS` or `SCALARIZERS`.
        num_environments: K.

    Raises: UsageError if TorchJD, or what it needs for this object, is not installed; if it has none of this
        name; if the text is malformed; if the object cannot be used with K environments.
    """

    def __init__(self, text: str, sort: Sort, num_environments: int) -> None:
        self._module = _built(text, sort, num_environments)
        with torch.random.fork_rng([]):  # tried with another one: a call changes its state
            try:
                _built(text, sort, num_environments)(_trial_input(sort, num_environments))
            except (TypeError, ValueError, RuntimeError) as error:
                raise _unusable(text, sort, num_environments, error) from None

    def __call__(self, values: Tensor) -> Tensor:
        """What the object makes of gradients (K, P) or losses (K,)."""
        self._place(values.device)
        result: Tensor = self._module(values)
        return result

    def can(self, method: str) -> bool:
        """Whether the object has a method `update` or `step`."""
        return callable(getattr(self._module, method, None))

    def update(self, losses: Tensor) -> None:
        """Tell it the losses (K,) after the network's step."""
        self._module.update(losses)

    def step(self) -> None:
        """Tell it that an epoch has ended."""
        self._module.step()

    def learned(self) -> list[nn.Parameter]:
        """Parameters for the network's optimizer: not those that the object optimises itself."""
        owners = [module for module in self._module.modules() if not hasattr(module, _OWN_OPTIMIZER)]
        return [parameter for module in owners for parameter in module.parameters(recurse=False)]

    def state_dict(self) -> dict[str, Any]:
        """State of each module, in their order."""
        return {"modules": [_state_of(module) for module in self._module.modules()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict` of an object with the same text. Tensors are copied."""
        for module, saved in zip(self._module.modules(), state["modules"], strict=True):
            _restore(module, copy.deepcopy(saved))

    def _place(self, device: torch.device) -> None:
        """Move tensors to `device`, but those of classes that always compute on the CPU."""
        if any(parameter.device != device for parameter in self._module.parameters()):
            self._module.to(device)  # keeps the parameters, which an optimizer may know
            for module in self._module.modules():
                own = vars(module).get(_OWN_OPTIMIZER)
                if own is not None:
                    own.load_state_dict(own.state_dict())  # to where its parameters are now
        for module in self._module.modules():
            key = vars(module).get("_state_key")
            if key is not None:
                parts = key if isinstance(key, tuple) else (key,)
                if not any(isinstance(part, torch.device) for part in parts):
                    continue
                module._state_key = tuple(
                    device if isinstance(part, torch.device) else part for part in parts
                )
            for values in (module._buffers, vars(module)):
                for name, value in values.items():
                    values[name] = _moved(value, device)


def _moved(value: Any, device: torch.device) -> Any:  # noqa: ANN401 - any attribute
    if isinstance(value, list):
        return [_moved(item, device) for item in value]
    return value.to(device) if isinstance(value, Tensor) else value


def _state_of(module: nn.Module) -> dict[str, Any]:
    attributes = vars(module)
    optimizer = attributes.get(_OWN_OPTIMIZER)
    return {
        "parameters": {
            name: parameter.detach() for name, parameter in module.named_parameters(recurse=False)
        },
        "buffers": dict(module._buffers),
        "attributes": {
            name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            for name, value in attributes.items()
            if name in _REMEMBERED
        },
        "optimizer": None if optimizer is None else optimizer.state_dict(),
    }


def _restore(module: Any, saved: dict[str, Any]) -> None:  # noqa: ANN401 - one of TorchJD's
    for name, parameter in module.named_parameters(recurse=False):
        parameter.data = saved["parameters"][name].to(parameter.device)
    module._buffers.update(saved["buffers"])
    for name, value in saved["attributes"].items():
        is_array = isinstance(vars(module).get(name), np.ndarray)
        setattr(module, name, value.numpy() if is_array else value)
    if hasattr(module, _OWN_OPTIMIZER):
        own = None
        if saved["optimizer"] is not None:
            own = optim.Adam(module.parameters(), lr=module.lr, weight_decay=module.weight_decay)
            own.load_state_dict(saved["optimizer"])
        setattr(module, _OWN_OPTIMIZER, own)
    if hasattr(module, "_init_optim_problem") and module.step:  # NashMTL makes its problem at step 0 alone
        module._init_optim_problem()


def _built(text: str, sort: Sort, num_environments: int) -> Any:  # noqa: ANN401 - of a library that may be missing
    try:
        library = importlib.import_module(sort.module)
    except ImportError:
        raise UsageError(
            f"{sort.word} {text} needs the package torchjd; install it: pip install torchjd"
        ) from None
    node = _parsed(text, sort)
    called = isinstance(node, ast.Call)
    name = node.func.id if called else node.id
    known = _names(library, sort)
    # A general class, such as WeightedAggregator, is one if it is told what to do.
    if name not in known and not (name.endswith(sort.base) and called):
        raise misspelt(f"torchjd has no {sort.word} {name!r}", name, known)
    try:
        return _evaluated(node, library, num_environments, _malformed(text, sort))
    except ImportError as error:
        raise UsageError(f"{sort.word} {text} needs more than torchjd alone: {_line(error)}") from None
    except (TypeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise _unusable(text, sort, num_environments, error) from None


def _parsed(text: str, sort: Sort) -> Any:  # noqa: ANN401 - ast.Name, or ast.Call of one
    try:
        node = ast.parse(text.removeprefix(PREFIX), mode="eval").body
    except (SyntaxError, ValueError):
        raise _malformed(text, sort) from None
    if not isinstance(node.func if isinstance(node, ast.Call) else node, ast.Name):
        raise _malformed(text, sort)
    return node


def _evaluated(node: ast.expr, library: ModuleType, num_environments: int, malformed: UsageError) -> Any:  # noqa: ANN401
    """The value of an argument, or the object itself."""
    arguments: dict[str, Any] = {}
    if isinstance(node, ast.Call):
        if node.args or any(each.arg is None for each in node.keywords):
            raise malformed
        arguments = {
            str(each.arg): _evaluated(each.value, library, num_environments, malformed)
            for each in node.keywords
        }
        node = node.func
    if isinstance(node, ast.Name):
        cls = vars(library).get(node.id)
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
            raise malformed
        parameters = inspect.signature(cls).parameters
        sizes = {name: num_environments for name in _SIZES if name in parameters}
        return cls(**sizes | arguments)
    try:
        value = ast.literal_eval(node)
    except ValueError:
        raise malformed from None
    return torch.tensor(value, dtype=torch.get_default_dtype()) if isinstance(value, list) else value


def _names(library: ModuleType, sort: Sort) -> list[str]:
    """Classes of this sort that `library` has; its base classes are none."""
    base = getattr(library, sort.base)
    return [
        name
        for name, cls in vars(library).items()
        if isinstance(cls, type) and issubclass(cls, base) and not name.endswith(sort.base)
    ]


def _trial_input(sort: Sort, num_environments: int) -> Tensor:
    """Gradients (K, K) or losses (K,) that any object takes."""
    return torch.eye(num_environments) if sort is AGGREGATORS else torch.ones(num_environments)


def _malformed(text: str, sort: Sort) -> UsageError:
    return UsageError(f"{sort.word} {text!r} is not written as {sort.example}")


def _unusable(text: str, sort: Sort, num_environments: int, error: Exception) -> UsageError:
    return UsageError(
        f"{sort.word} {text} cannot be used with {num_environments} source environments ({_line(error)}); "
        f"arguments are written as in {sort.example.split()[-1]}"
    )


def _line(error: Exception) -> str:
    """The error's message in one line."""
    return " ".join(str(error).split())
