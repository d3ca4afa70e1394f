"""`--where steps>=300` chooses runs by a setting, and `--by steps` shows the runs with each of its values."""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domainbed.errors import RunError, UsageError, misspelt
from domainbed.training.config import SETTINGS
from domainbed.training.run_settings import MAY_BE_UNKNOWN, NAMED, Kinds, Run, as_text, overrides_of

_OPERATORS: Mapping[str, Callable[[Any, Any], object]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_CONDITION = re.compile(r"\s*([\w.]+)\s*(>=|<=|!=|=|>|<)\s*(.*?)\s*", re.DOTALL)

_WORDS = {"true": True, "false": False, "none": None, "null": None}

MOST_VALUES = 6
"""Number of values that a message lists."""


@dataclass(frozen=True)
class Condition:
    """A condition on one setting, hyper-parameter, or identity of data and weights.

    A run that does not have it, as ERM has no `irm_lambda`, and one that does not tell its data, meets it.

    Attributes:
        name: name of the setting, as in `domainbed.training.run_settings`.
        operator: one of = != >= <= > <.
        value: text of the value; "none" for no value.
    """

    name: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.name}{self.operator}{self.value}"

    def holds(self, value: Hashable) -> bool:
        """Whether `value` meets the condition. Only numbers are larger or smaller than others."""
        wanted = _parsed(self.value)
        if _is_number(value) and _is_number(wanted):
            return bool(_OPERATORS[self.operator](value, wanted))
        equal = as_text(value) in (self.value, as_text(wanted))
        return {"=": equal, "!=": not equal}.get(self.operator, False)


def parse_condition(text: str) -> Condition:
    """The condition that `text` writes, such as "steps>=300".

    Raises: UsageError if it is no condition.
    """
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise UsageError(f"--where takes NAME=VALUE, or != >= <= > <, such as steps>=300; not {text!r}")
    condition = Condition(*match.groups())
    if condition.operator not in ("=", "!=") and not _is_number(_parsed(condition.value)):
        raise UsageError(f"--where {text} compares with {condition.value!r}, which is not a number")
    return condition


class Choice:
    """Conditions on the runs of a sweep.

    Args:
        runs: all runs with records.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs
        self._kinds = Kinds()
        self._methods: dict[str, set[tuple[str, str]]] = {}

    def meets(self, run: Run, conditions: Iterable[Condition]) -> bool:
        """Whether a run, with or without records, meets all conditions."""
        return all(
            not self._concerns(run, condition.name) or condition.holds(self._value(run, condition.name))
            for condition in conditions
        )

    def check(self, conditions: Sequence[Condition]) -> None:
        """Check that the names exist, and that some run meets all conditions.

        Raises: UsageError for an unknown name; RunError if no run is left.
        """
        for condition in conditions:
            self.check_name(condition.name, "--where")
        if not any(self.meets(run, conditions) for run in self._runs):
            flags = " ".join(f"--where {condition}" for condition in conditions)
            found = "; ".join(f"{each.name} is {_listed(self.values(each.name))}" for each in conditions)
            raise RunError(f"no run meets {flags}: {found}")

    def check_name(self, name: str, flag: str) -> None:
        """Raise UsageError if no run has a value of `name`."""
        known = {each for run in self._runs for each in (*run.recorded, *run.args)}
        known |= {each for each, setting in SETTINGS.items() if setting.recorded}
        if name not in known:
            raise misspelt(f"{flag}: the runs have no setting or hyper-parameter {name!r}", name, known)

    def values(self, name: str) -> list[Hashable]:
        """The values of `name` in the runs that it concerns, numbers first, each kind in ascending order."""
        values = {self._value(run, name) for run in self._runs if self._concerns(run, name)}
        return sorted(
            values, key=lambda value: (value if isinstance(value, int | float) else math.inf, str(value))
        )

    def _concerns(self, run: Run, name: str) -> bool:
        """Whether the run tells a value of `name`, or other runs of its method do."""
        if name not in self._methods:
            telling = [each for each in self._runs if self._value(each, name) is not None]
            self._methods[name] = {(each.dataset, each.method) for each in telling}
        unknown = self._value(run, name) is None and name.startswith(MAY_BE_UNKNOWN)
        return (run.dataset, run.method) in self._methods[name] and not unknown

    def _value(self, run: Run, name: str) -> Hashable:
        if name in NAMED and name in run.args:
            value = run.args[name]
            return json.dumps(value) if isinstance(value, list) else str(value)
        return self._kinds.value(name, run)


def run_of_args(args: Mapping[str, Any]) -> Run:
    """A run of which only the arguments are known."""
    return Run(args, overrides_of(args), [])


def _listed(values: Sequence[Hashable]) -> str:
    shown = ", ".join(as_text(value) for value in values[:MOST_VALUES])
    return f"{shown}, ..." if len(values) > MOST_VALUES else shown or "not recorded"


def _parsed(text: str) -> Hashable:
    """The number, bool or None that `text` writes, else the text."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
