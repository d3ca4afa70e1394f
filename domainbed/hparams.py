"""Declarations of hyper-parameters: default, random draw, valid values, meaning and kind.

A class declares a table `name -> Hparam`. Where the values depend on the dataset, the entry is a function
of the dataset's name that returns the `Hparam`.
"""

from __future__ import annotations

import enum
import json
import math
import operator
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from domainbed.errors import UndeclaredHparam, UsageError, hint, misspelt
from domainbed.escaping import shortened
from domainbed.json_input import DuplicateKey, json_without_duplicates
from domainbed.registry import Registry

Value = bool | int | float | str
Draw = Callable[[np.random.RandomState], Value]

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


@dataclass(frozen=True)
class Constant:
    """A draw that always gives `value`."""

    value: Value

    def __call__(self, r: np.random.RandomState) -> Value:
        return self.value


@dataclass(frozen=True)
class Described:
    """A draw, and its distribution in words."""

    draw: Draw
    words: str

    def __call__(self, r: np.random.RandomState) -> Value:
        return self.draw(r)


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


class HparamValues(dict[str, Value]):
    """The hyper-parameters of a run, by name. Reading one that no class declares is an error of one line."""

    __slots__ = ()

    def __missing__(self, name: str) -> Value:
        code = sys._getframe(1).f_code
        raise UndeclaredHparam(
            f"{code.co_qualname} ({code.co_filename}) reads the hyper-parameter {name!r}, which is not "
            f"declared; put it into HPARAMS of the algorithm's, dataset's or featurizer's class: "
            f'HPARAMS = {{"{name}": Hparam(default, draw, help)}}'
        )

    def __or__(self, other: Mapping[str, Value]) -> HparamValues:  # type: ignore[override] # of this class
        return HparamValues({**self, **other})


OPTIONS: Registry[Hparam] = Registry.of_module("Hyper-parameter")
"""Optional hyper-parameters such as `featurizer`: any run may set them, but they are in no default table,
so that default tables equal upstream's.

The module that reads an option declares it, `OPTIONS["grey"] = Hparam(...)`, and reads it with `option`.
Only the options of imported modules and of plugins are here; `hparams_registry.options` returns all.
"""


SYNONYMS: Mapping[str, str] = {
    "learning_rate": "lr",
    "learningrate": "lr",
    "lrate": "lr",
    "eta": "lr",
    "wd": "weight_decay",
    "l2": "weight_decay",
    "decay": "weight_decay",
    "bs": "batch_size",
    "minibatch_size": "batch_size",
    "dropout": "resnet_dropout",
    "backbone": "featurizer",
    "model": "featurizer",
    "network": "featurizer",
    "arch": "featurizer",
    "architecture": "featurizer",
    "augmentations": "data_augmentation",
    "optim": "optimizer",
    "opt": "optimizer",
    "scheduler": "schedule",
    "lr_scheduler": "schedule",
    "lr_schedule": "schedule",
    "warmup": "warmup_steps",
}
"""What other projects call hyper-parameters of ours."""


def synonym_in(name: str, known: Iterable[str]) -> str | None:
    """The one of the `known` hyper-parameters that has this name, or that others call so; or None."""
    spelt = name.lower().replace("-", "_")
    return next((each for each in known if each in (name, SYNONYMS.get(spelt))), None)


def unknown(name: str, known: Iterable[str]) -> UsageError:
    """The error for a hyper-parameter that nothing reads; it suggests some of the names in `known`."""
    names = list(known)
    return misspelt(f"unknown hyper-parameter {name!r}", name, names, synonym_in(name, names))


def option(hparams: Mapping[str, Any], name: str) -> Value:
    """The value of the optional hyper-parameter `name`: that in `hparams`, or else its default.

    Raises: UsageError for an invalid value.
    """
    declared = OPTIONS[name]
    return declared.check(name, hparams[name]) if name in hparams else declared.default


def resolve(declaration: Declaration, dataset: str) -> Hparam:
    """The `Hparam` that a table's entry declares for `dataset`."""
    return declaration if isinstance(declaration, Hparam) else declaration(dataset)


def const(value: Value) -> Draw:
    """`value`, without a draw."""
    return Constant(value)


def uniform(low: float, high: float) -> Draw:
    """U(low, high)."""
    return Described(lambda r: float(r.uniform(low, high)), f"U({low:g}, {high:g})")


def uniform_int(low: float, high: float) -> Draw:
    """U(low, high), truncated toward zero."""
    return Described(lambda r: int(r.uniform(low, high)), f"U({low:g}, {high:g}), truncated")


def log10_uniform(low: float, high: float) -> Draw:
    """10^U(low, high)."""
    return Described(lambda r: float(10 ** r.uniform(low, high)), f"10^U({low:g}, {high:g})")


def log10_int(low: float, high: float) -> Draw:
    """10^U(low, high), truncated toward zero."""
    return Described(lambda r: int(10 ** r.uniform(low, high)), f"10^U({low:g}, {high:g}), truncated")


def log2_int(low: float, high: float) -> Draw:
    """2^U(low, high), truncated toward zero."""
    return Described(lambda r: int(2 ** r.uniform(low, high)), f"2^U({low:g}, {high:g}), truncated")


def choice(*values: Value) -> Draw:
    """One of `values`, all equally likely. NumPy converts them to one type."""

    def draw(r: np.random.RandomState) -> Value:
        picked: Value = r.choice(list(values)).item()
        return picked

    return Described(draw, f"one of {', '.join(map(str, values))}")


def parse_overrides(text: str | None) -> dict[str, object]:
    """The JSON object in `text`, the value of `--hparams`; empty for None.

    Raises: UsageError if `text` is not a JSON object, or has a key twice.
    """
    if text is None:
        return {}
    try:
        overrides = json_without_duplicates(text)
    except DuplicateKey as error:
        raise UsageError(f"--hparams: {error}: {shortened(text)!r}") from None
    except ValueError as error:
        raise UsageError(
            f"--hparams is not valid JSON ({error}): {shortened(text)!r}; write e.g. '{{\"lr\": 0.001}}'"
        ) from None
    if not isinstance(overrides, dict):
        raise UsageError(
            f"--hparams takes a JSON object such as '{{\"lr\": 0.001}}', not {shortened(text)!r}"
        )
    return overrides


def override(hparams: dict[str, Value], overrides: Mapping[str, object], table: Table, dataset: str) -> None:
    """Validate `overrides` and apply them to `hparams`.

    Raises: UsageError for a name that `table` does not have, or an invalid value.
    """
    for name, value in overrides.items():
        if name not in table:
            raise unknown(name, table)
        hparams[name] = resolve(table[name], dataset).check(name, value)
