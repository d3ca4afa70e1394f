"""Whether a JSON value is a record: readers of results rely on its keys, and on the kinds of their values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from domainbed.escaping import shortened
from domainbed.json_input import NestedTooDeep
from domainbed.metrics import is_metric_key

_LARGEST = 1 << 63
"""Integers of this size or more are no steps, seeds or numbers of samples."""

_REQUIRED_ARGS = {"trial_seed": int, "dataset": str, "algorithm": str, "hparams_seed": int, "test_envs": list}
_OBJECTS = ("hparams", "sizes", "data", "weights")
_MEASURED = ("_acc", "loss", "step_time", "agreement", "cosine")
"""Ends of keys whose values are numbers."""


def problem_of(value: Any, previous: Mapping[str, Any]) -> str:  # noqa: ANN401 - any JSON value
    """Which key that readers of results rely on is missing or invalid in `value`; empty for a record.

    Args:
        value: a JSON value, None for invalid JSON, or the reason why it was not read.
        previous: the record before. `args` that are the same object as its are not checked again.
    """
    if value is None:
        return "not valid JSON"
    if isinstance(value, NestedTooDeep):
        return str(value)
    if not isinstance(value, dict):
        return "not a JSON object"
    if not is_finite_number(value.get("step")):
        return _lack(value, "step")
    if not isinstance(value.get("args"), dict):
        return _lack(value, "args")
    for key, entry in value.items():
        if not _fits(key, entry):
            return f'invalid "{shortened(key)}"'
    found = "" if value["args"] is previous.get("args") else problem_of_args(value["args"])
    return f"args: {found}" if found else ""


def problem_of_args(args: Mapping[str, Any], may_lack: bool = False) -> str:
    """Which argument of a run is missing or of a wrong kind; empty if all are as they should be.

    Args:
        args: the arguments.
        may_lack: whether arguments may be missing.
    """
    for key, kind in _REQUIRED_ARGS.items():
        if not isinstance(args.get(key), kind) and not (may_lack and key not in args):
            return _lack(args, key)
    for key in ("trial_seed", "hparams_seed", "seed"):
        if key in args and not (isinstance(args[key], int) and is_finite_number(args[key])):
            return _lack(args, key)
    if not all(isinstance(target, int) for target in args.get("test_envs", ())):
        return _lack(args, "test_envs")
    for key, value in args.items():
        if not all(map(_is_plain, value if isinstance(value, list) else [value])):
            return f'invalid "{shortened(key)}"'
    return ""


def _fits(key: str, entry: object) -> bool:
    """Whether `entry` is of the kind that readers take the entry `key` for."""
    if key in _OBJECTS:
        return isinstance(entry, dict)
    if key == "environments":
        return isinstance(entry, list)
    is_measured = key.endswith(_MEASURED) or (key.startswith("env") and is_metric_key(key))
    return not is_measured or isinstance(entry, float) or is_finite_number(entry)


def _is_plain(value: object) -> bool:
    """Whether `value` is a text, a number that fits a float, a boolean or null."""
    return value is None or isinstance(value, str | float) or is_finite_number(value)


def is_finite_number(value: object) -> bool:
    """Whether `value` is a number, neither NaN nor infinite, that fits a float."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and abs(value) < _LARGEST


def _lack(entries: Mapping[str, object], key: str) -> str:
    return f'invalid "{key}"' if key in entries else f'no "{key}"'
