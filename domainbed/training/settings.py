"""Flags and settings declared as fields of a dataclass.

    @dataclass(frozen=True)
    class TrainConfig:
        steps: int | None = setting(None, "number of updates (default: the dataset's)", at_least=1)

Name, type and default are those of the field. `flags_of` and `settings_of` return the declarations, which
make the flags of a command line and check values.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import enum
import functools
import json
import operator
import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, TypeVar, get_args, get_type_hints

from domainbed.datasets.environment_names import index_or_name
from domainbed.errors import UsageError
from domainbed.hparams import Kind, Limits

T = TypeVar("T")

_SAME = object()


@dataclass(frozen=True, kw_only=True)
class Flag(Limits):
    """A flag of a command line that is also a field of a dataclass.

    Attributes:
        name: name of the field; the flag is `--name`.
        type: type of its value, or of the items of a list.
        is_list: whether its value is a list.
        optional: whether its value may be None.
        default: value where none is given.
        help: meaning, in a few words.
        takes_names: whether its numbers are indices of environments, which can be given by name too.
        group: heading under which --help lists it.
    """

    name: str
    type: type
    is_list: bool
    optional: bool
    default: Any
    help: str
    takes_names: bool = False
    group: str = ""

    @property
    def type_name(self) -> str:
        """What a value, or an item of it, is: "int", or "int or name"."""
        return f"{self.type.__name__} or name" if self.takes_names else self.type.__name__

    def add_to(self, parser: argparse._ActionsContainer, name: str = "", **changes: Any) -> None:  # noqa: ANN401 - of argparse
        """Add the flag to `parser`; `name` and `changes` win over the declaration."""
        keywords: dict[str, Any] = {"default": copy.copy(self.default), "help": self.argparse_help()}
        if self.type is bool:
            keywords["action"] = "store_true"
        else:
            keywords["type"] = index_or_name if self.takes_names else self.type
            # Not as argparse's `choices`, whose errors take several lines; `check` refuses other values.
            keywords["metavar"] = f"{{{','.join(map(str, self.choices))}}}" if self.choices else None
            keywords["nargs"] = "+" if self.is_list else None
        if "action" in changes:
            keywords = {key: keywords[key] for key in ("default", "help")}
        parser.add_argument(f"--{name or self.name}", **keywords | changes)

    def argparse_help(self) -> str:
        """The meaning, with the default if that is a number or a text."""
        silent = self.default is None or self.default is False
        default = " ".join(map(str, self.default)) if self.is_list and not silent else self.default
        return (self.help if silent else f"{self.help} (default: {default})").replace("%", "%%")

    def check(self, value: object, subject: str = "") -> None:
        """Raise UsageError if `value`, or an item of it, is outside the limits.

        Args:
            value: a value of the right type.
            subject: begins the sentence; by default the flag.
        """
        for each in value if isinstance(value, list) else [value]:
            if not (each is None and self.optional):
                self.check_limits(subject or f"--{self.name}", each)

    def converted(self, value: Any, subject: str = "") -> Any:  # noqa: ANN401 - what a user gives to a function call
        """`value` as plain Python: paths become texts, NumPy's numbers Python's, a dict JSON text.

        Names of environments stay texts.

        Raises: UsageError for a value of another type.
        """
        try:
            return self._converted(value)
        except (TypeError, ValueError, AttributeError):
            wanted = f"list[{self.type_name}]" if self.is_list else self.type_name
            subject = subject or f"setting {self.name}"
            raise UsageError(f"{subject} takes a value of type {wanted}, not {value!r}") from None

    def _converted(self, value: Any) -> Any:  # noqa: ANN401 - as above
        if value is None and self.optional:
            return None
        if not self.is_list:
            return self._item(value)
        if isinstance(value, str):
            raise TypeError
        return [self._item(each) for each in value]

    def _item(self, value: Any) -> Any:  # noqa: ANN401 - as above
        is_name = self.takes_names and isinstance(value, str)
        return index_or_name(value) if is_name else _as_type(self.type, value)


def _as_type(wanted: type, value: Any) -> Any:  # noqa: ANN401 - as above
    if isinstance(value, bool) != (wanted is bool):
        raise TypeError
    if wanted is str:
        # A dict is the value of `hparams`.
        is_dict = isinstance(value, dict)
        return json.dumps(value, default=lambda item: item.item()) if is_dict else os.fspath(value)
    if wanted is float and not isinstance(value, int | str):
        return float(value)
    return value if wanted is bool else operator.index(value)


class InSweep(enum.Enum):
    """How the runs of a sweep get their value of a setting."""

    NEVER = "no"
    """They have the default."""
    GRID = "set by the grid"
    """The grid of runs sets it, from flags that belong to `sweep` alone."""
    GIVEN = "yes"
    """From a flag of the same name, if it is given."""
    ALWAYS = "yes, always written"
    """From a flag of the same name, by default the setting's default."""
    UNNAMED = "yes, not in the run's name"
    """As `GIVEN`, but a run keeps its directory whether the flag is given or not."""
    NEEDED = "set in runs that need it, not in the run's name"
    """`sweep` sets it itself, in the runs that need it. A run keeps its directory with and without it."""
    SEVERAL = "yes, several values"
    """From a flag of the same name that takes several values: the grid is repeated for each."""


class Group(enum.StrEnum):
    """Headings under which --help lists the settings of a run, in this order."""

    RUN = "the run"
    HPARAMS = "hyper-parameters"
    SPLITS = "splits, minibatches and evaluation"
    IMAGES = "images"
    SPEED = "devices and speed"
    FILES = "what a run writes"
    RESUMING = "stopping and resuming"


@dataclass(frozen=True, kw_only=True)
class Setting(Flag):
    """A setting of a run.

    Attributes:
        kind: role in an experiment.
        recorded: whether it is in the `args` of records.
        compared: whether a run directory belongs to one value of it.
        in_sweep: how the runs of a sweep get their value.
        value_before: value of records and run directories that are older than the setting.
    """

    kind: Kind
    recorded: bool
    compared: bool
    in_sweep: InSweep
    value_before: Any


def flag(default: T, help: str, **limits: Any) -> T:  # noqa: ANN401 - those of Limits
    """Declare a flag: the value of a dataclass field.

    Args:
        default: value where none is given.
        help: meaning, in a few words.
        limits: `choices`, `at_least`, `above`, `at_most`, `below` (see `domainbed.hparams.Limits`),
            `takes_names` and `group` (see `Flag`).
    """
    return _field(default, {"help": help, **limits})


def setting(
    default: T,
    help: str,
    *,
    group: Group = Group.RUN,
    kind: Kind = Kind.DESIGN,
    recorded: bool = True,
    compared: bool | None = None,
    in_sweep: InSweep = InSweep.NEVER,
    value_before: object = _SAME,
    **limits: Any,  # noqa: ANN401 - those of `flag`
) -> T:
    """Declare a setting of a run: the value of a dataclass field.

    Args:
        default, help, limits: as in `flag`.
        group, kind, recorded, in_sweep: as in `Setting`.
        compared: as in `Setting`; by default as `recorded`.
        value_before: as in `Setting`; by default as `default`.
    """
    metadata = {
        "help": help,
        "group": group,
        "kind": kind,
        "recorded": recorded,
        "compared": recorded if compared is None else compared,
        "in_sweep": in_sweep,
        "value_before": default if value_before is _SAME else value_before,
        **limits,
    }
    return _field(default, metadata)


def _field(default: T, metadata: Mapping[str, Any]) -> T:
    # Returns a field, typed as the default so that type checkers compare it with the annotation.
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: copy.copy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@functools.cache
def flags_of(declaring_class: type) -> Mapping[str, Flag]:
    """The flags that a dataclass declares by `flag`, by name, in their order."""
    return {name: Flag(**keywords) for name, keywords in _declarations(declaring_class).items()}


@functools.cache
def settings_of(declaring_class: type) -> Mapping[str, Setting]:
    """The settings that a dataclass declares by `setting`, by name, in their order."""
    return {name: Setting(**keywords) for name, keywords in _declarations(declaring_class).items()}


def _declarations(declaring_class: type) -> dict[str, dict[str, Any]]:
    hints = get_type_hints(declaring_class)
    declarations = {}
    for field in dataclasses.fields(declaring_class):
        if field.metadata:
            default = field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            own = {"name": field.name, "default": default, **_type_of(hints[field.name])}
            declarations[field.name] = own | dict(field.metadata)
    return declarations


def _type_of(annotation: Any) -> dict[str, Any]:  # noqa: ANN401 - of a field
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    (kind,) = (each for each in kinds if each is not type(None))
    item = get_args(kind)
    return {"type": item[0] if item else kind, "is_list": bool(item), "optional": len(kinds) > 1}
