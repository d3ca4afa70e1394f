"""What is declared of a hyper-parameter: default, random draw, valid values, meaning and kind."""

from __future__ import annotations

import enum
import json
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from domainbed.errors import UsageError, hint
from domainbed.hparams.draws import Constant, Described, Draw, Value

REFERENCE_STEPS = 5000
"""Number of updates for which upstream chose the defaults and ranges of hyper-parameters."""


class Kind(enum.Enum):
    """Role of a setting or hyper-parameter in an experiment, which decides what one number may pool."""

    INCIDENTAL = "incidental"
    """Changes no number that matters, such as a folder or the number of loader processes."""
    SEARCHED = "searched"
    """Drawn by the hyper-parameter search; model selection chooses among its values."""
    DESIGN = "design"
    """Defines the experiment: runs that differ in it are never pooled."""
    SEED = "seed"
    """Distinguishes repetitions, which are averaged."""


class Reader(enum.Enum):
    """The part of a run that reads an optional hyper-parameter, if it says in `READS` that it does."""

    FEATURIZER = "featurizer"
    DATASET = "dataset"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The valid values of a hyper-parameter or setting: some choices, or numbers within bounds.

    Attributes:
        choices: all valid values; empty for any value.
        at_least: smallest valid value.
        above: a valid value is larger than this.
        at_most: largest valid value.
        below: a valid value is smaller than this.
    """

    choices: tuple[Value, ...] = ()
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def check_limits(self, subject: str, value: object) -> None:
        """Raise UsageError, in a sentence that begins with `subject`, if `value` is outside the limits."""
        if self.choices and value not in self.choices:
            listed = ", ".join(str(each) for each in self.choices)
            error = UsageError(f"{subject} must be one of {listed}, not {value!r}")
            if isinstance(value, str):
                error.add_note(hint(value, map(str, self.choices)))
            raise error
        for bound, holds, words in (
            (self.at_least, operator.ge, "at least"),
            (self.above, operator.gt, "more than"),
            (self.at_most, operator.le, "at most"),
            (self.below, operator.lt, "less than"),
        ):
            if bound is not None and not (isinstance(value, int | float) and holds(value, bound)):
                text = f"{bound:g}" if isinstance(bound, float) else bound
                raise UsageError(f"{subject} must be {words} {text}, not {value}")


@dataclass(frozen=True)
class Hparam(Limits):
    """One hyper-parameter.

    Attributes:
        default: value for hparams seed 0.
        random: draws the value for other seeds; makes at most one draw.
        help: meaning, in a few words.
        type: Python type of a valid value, by default that of `default`.
        kind: role in an experiment. By default `SEARCHED` if the random value can differ from `default`,
            else `DESIGN`.
        value_before: value in records that are older than the hyper-parameter, by default `default`.
        reader: for an optional hyper-parameter that only some featurizers or datasets read: which of the two.
            A run of others refuses it.
        only_if: (name, value) of another optional hyper-parameter without which this one has no effect.
        counts_updates: whether the value is a number of updates, such as the length of a warm-up, that is
            chosen for runs of `REFERENCE_STEPS` updates.
        file_suffix: if a text may be the path of a file that the run reads, how such texts end; "" if all are
            paths. None: none is one.
    """

    default: Value
    random: Draw
    help: str = ""
    type: type | None = None
    kind: Kind = None  # type: ignore[assignment] # __post_init__ replaces None
    value_before: Value = None  # type: ignore[assignment] # as above
    reader: Reader | None = None
    only_if: tuple[str, Value] | None = None
    counts_updates: bool = False
    file_suffix: str | None = None

    def __post_init__(self) -> None:
        if vars(self)["kind"] is None:
            kind = Kind.DESIGN if self.random == Constant(self.default) else Kind.SEARCHED
            object.__setattr__(self, "kind", kind)
        if vars(self)["value_before"] is None:
            object.__setattr__(self, "value_before", self.default)

    def draw(self, random_state: np.random.RandomState) -> Value:
        """The random value as a plain Python one: JSON and `torch.load` refuse NumPy scalars."""
        value = self.random(random_state)
        return value.item() if isinstance(value, np.generic) else value

    @property
    def distribution(self) -> str:
        """Distribution of random values in words; empty for the default, and for a plugin's own draws."""
        return self.random.words if isinstance(self.random, Described) else ""

    def is_path(self, value: object) -> bool:
        """Whether the value is the path of a file that the run reads."""
        suffix = self.file_suffix
        return isinstance(value, str) and suffix is not None and value != "" and value.endswith(suffix)

    def scaled(self, value: Value, factor: float) -> Value:
        """`value` for a run of `factor` times `REFERENCE_STEPS` updates, if it `counts_updates`; else itself.

        An int is rounded down. The smallest valid value remains the smallest.
        """
        if not self.counts_updates or not isinstance(value, int | float):
            return value
        return type(value)(max(value * factor, self.at_least or 0))

    def check(self, name: str, value: object) -> Value:
        """`value`, if it is valid; an int is a valid float. Raises `UsageError` otherwise."""
        wanted = self.type or type(self.default)
        fits = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
        if not fits or (isinstance(value, bool) and wanted is not bool):
            found = f"{json.dumps(value, default=str)} ({type(value).__name__})"
            raise UsageError(f"hyper-parameter {name} takes a value of type {wanted.__name__}, not {found}")
        assert isinstance(value, bool | int | float | str)
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"hyper-parameter {name} is a finite number, not {value}")
        self.check_limits(f"hyper-parameter {name}", value)
        return value


Declaration = Hparam | Callable[[str], Hparam]
Table = Mapping[str, Declaration]


def merged_tables(cls: type, attribute: str) -> dict[str, Any]:
    """The entries of all dicts that `cls` and its bases declare as `attribute`, those of bases first."""
    merged: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        merged |= base.__dict__.get(attribute, {})
    return merged


def resolve(declaration: Declaration, dataset: str) -> Hparam:
    """The `Hparam` that a table's entry declares for `dataset`."""
    return declaration if isinstance(declaration, Hparam) else declaration(dataset)
