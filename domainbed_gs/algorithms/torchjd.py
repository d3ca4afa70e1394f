"""Aggregators of TorchJD by name, with its package imported when one is asked for."""

from __future__ import annotations

import ast
import importlib
from types import ModuleType

import torch
from torch import Tensor

from domainbed.errors import UsageError, misspelt

PREFIX = "torchjd:"
"""What the name of an aggregator of TorchJD starts with."""

_EXAMPLE = f"{PREFIX}TrimmedMean(trim_number=1)"


def torchjd_direction(text: str, matrix: Tensor) -> Tensor:
    """What the aggregator that `text` names makes of K gradients.

    Args:
        text: "torchjd:NAME" or "torchjd:NAME(key=value, ...)"; a list among the values becomes a tensor.
        matrix: the gradients (K, P).

    Returns: (P,).

    Raises: UsageError if TorchJD, or what it needs for this aggregator, is not installed; if it has none
        of this name; if the text is malformed; if the aggregator remembers earlier updates, which a
        checkpoint of ours would not hold. What the aggregator raises about its arguments goes through.
    """
    name, arguments = _parsed(text)
    try:
        library = importlib.import_module("torchjd.aggregation")
    except ImportError:
        raise UsageError(
            f"aggregator {text} needs the package torchjd; install it: pip install torchjd"
        ) from None
    known = _names(library)
    if name not in known:
        raise misspelt(f"torchjd has no aggregator {name!r}", name, known)
    if hasattr(getattr(library, name), "reset"):
        raise UsageError(
            f"aggregator {text} remembers earlier updates, which a checkpoint would lose; use one that does "
            "not, or our GradVac or NashMTL"
        )
    # Nothing is remembered, so one is made where the gradients are, whenever it is needed.
    placed = {
        key: torch.tensor(value, dtype=matrix.dtype, device=matrix.device)
        if isinstance(value, list)
        else value
        for key, value in arguments.items()
    }
    try:
        direction: Tensor = getattr(library, name)(**placed)(matrix)
    except ImportError as error:
        raise UsageError(f"aggregator {text} needs more than torchjd alone: {_line(error)}") from None
    return direction


def check_torchjd(text: str, num_environments: int) -> None:
    """Raise `UsageError` unless `text` names an aggregator that takes K = `num_environments` gradients."""
    try:
        with torch.random.fork_rng([]):
            torchjd_direction(text, torch.eye(num_environments))
    except (TypeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"aggregator {text} can't be used with {num_environments} source environments ({_line(error)}); "
            f"arguments are written as in {_EXAMPLE}"
        ) from None


def _parsed(text: str) -> tuple[str, dict[str, object]]:
    """Name and arguments."""
    values: dict[str, object] = {}
    try:
        node: ast.expr | None = ast.parse(text.removeprefix(PREFIX), mode="eval").body
        if isinstance(node, ast.Call) and not node.args:
            values = {str(each.arg): ast.literal_eval(each.value) for each in node.keywords}
            node = node.func
    except (SyntaxError, ValueError):
        node = None
    if not isinstance(node, ast.Name):
        raise UsageError(f"aggregator {text!r} is not written as {PREFIX}ConFIG or {_EXAMPLE}")
    return node.id, values


def _names(library: ModuleType) -> list[str]:
    """Aggregators that `library` has; its base classes are none."""
    classes = [(name, thing) for name, thing in vars(library).items() if isinstance(thing, type)]
    return [
        name
        for name, cls in classes
        if issubclass(cls, library.Aggregator) and not name.endswith("Aggregator")
    ]


def _line(error: Exception) -> str:
    """The error's message in one line."""
    return " ".join(str(error).split())
