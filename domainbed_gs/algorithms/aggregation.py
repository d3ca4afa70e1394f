"""Any aggregator of TorchJD by name (Quinton and Rey 2024, arXiv 2406.16232)."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Minibatch
from domainbed.algorithms.precision import full_precision
from domainbed.errors import UsageError, misspelt
from domainbed.gradients.comparison import Combined
from domainbed.hparams import Hparam, const
from domainbed.seeds import counter_seed
from domainbed_gs.algorithms.upgrad import UPGrad

PREFIX = "torchjd:"
"""Start of an aggregator's name."""

_EXAMPLE = f"{PREFIX}TrimmedMean(trim_number=1)"


@REGISTRY.register()
class Aggregation(UPGrad):
    """An aggregator of TorchJD by name (Quinton and Rey 2024, arXiv 2406.16232).

    `aggregator` is "torchjd:ConFIG", say, or "torchjd:TrimmedMean(trim_number=1)".

    By default our own UPGrad, which needs no TorchJD. An aggregator gets the K x P matrix of the gradients, a
    second copy of them; what it draws comes from torch's global generator, seeded for it by the run's seed
    and the update, and restored. Its direction counts as one on the scale of a mean, whatever it is (with
    `reduction` "mean", the default, it is used as it is), and `removed` is not logged.
    """

    HPARAMS = {
        "aggregator": Hparam("UPGrad", const("UPGrad"), f"UPGrad, or {PREFIX}NAME, one of TorchJD's"),
    }
    DISTRIBUTED = False

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        name = hparams["aggregator"]
        if name.startswith(PREFIX):
            check_torchjd(name, num_domains)
        elif name in REGISTRY and name != "UPGrad":
            raise UsageError(f"aggregator {name} is an algorithm of its own: choose --algorithm {name}")
        elif name != "UPGrad":
            raise misspelt(f"aggregator not found: {name}", name, ["UPGrad", f"{PREFIX}NAME"])
        super().__init__(input_shape, num_classes, num_domains, hparams)

    def combined(self, minibatches: Sequence[Minibatch], seeds: Sequence[int]) -> tuple[Tensor, Combined]:
        if self.hparams["aggregator"] == "UPGrad":
            return super().combined(minibatches, seeds)
        return self.engine.as_matrix(minibatches, seeds, self._direction, self.factor(len(minibatches)))

    def _direction(self, matrix: Tensor) -> Tensor:
        """(P,) of the gradients (K, P)."""
        devices = [matrix.device] if matrix.device.type == "cuda" else []
        with full_precision(matrix), torch.random.fork_rng(devices):
            torch.manual_seed(counter_seed(self.surgery_seed, self.updates))
            return torchjd_direction(self.hparams["aggregator"], matrix)

    def finish(self, combined: Combined) -> None:
        super().finish(combined)
        if self.hparams["aggregator"] != "UPGrad":
            # A direction of unknown scale says nothing about what was removed, and it is always defined.
            del combined.logged["removed"], combined.logged["fallback"]


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
            f"aggregator {text} cannot be used with {num_environments} source environments ({_line(error)}); "
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
