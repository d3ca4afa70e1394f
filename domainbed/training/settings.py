"""Settings declared as fields of a dataclass, and the command-line flags made from the declarations.

    @dataclass(frozen=True)
    class TrainConfig:
        steps: int | None = setting(None, "number of updates (default: the dataset's)", at_least=1)

Name, type and default are those of the field. `settings_of(TrainConfig)` returns the declarations.
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

from domainbed.errors import UsageError
from domainbed.hparams import Kind, Limits

T = TypeVar("T")

_SAME = object()


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
    SEVERAL = "yes, several values"
    """From a flag of the same name that takes several values: the grid is repeated for each."""


@dataclass(frozen=True, kw_only=True)
class Setting(Limits):
    """One setting. For the other attributes see `setting`.

    Attributes:
        name: name of the field, and of the flag.
        type: type of its value, or of the items of a list.
        is_list: whether its value is a list.
        optional: whether its value may be None.
    """

    name: str
    type: type
    is_list: bool
    optional: bool
    default: Any
    help: str
    kind: Kind
    recorded: bool
    compared: bool
    in_sweep: InSweep
    value_before: Any

    def add_flag(self, parser: argparse._ActionsContainer, name: str = "", **changes: Any) -> None:  # noqa: ANN401 - of argparse
        """Add the flag `--name` to `parser`; `name` and `changes` win over the declaration."""
        keywords: dict[str, Any] = {"default": copy.copy(self.default), "help": self.flag_help()}
        if self.type is bool:
            keywords["action"] = "store_true"
        else:
            keywords["type"] = self.type
            # Not as argparse's `choices`, whose errors take several lines; `check` refuses other values.
            keywords["metavar"] = f"{{{','.join(map(str, self.choices))}}}" if self.choices else None
            keywords["nargs"] = "+" if self.is_list else None
        parser.add_argument(f"--{name or self.name}", **keywords | changes)

    def flag_help(self) -> str:
        """The meaning and, where it says something, the default, for argparse."""
        silent = self.default is None or self.default is False
        default = " ".join(map(str, self.default)) if self.is_list else self.default
        return (self.help if silent else f"{self.help} (default: {default})").replace("%", "%%")

    def check(self, value: object, subject: str = "") -> None:
        """Raise UsageError if `value` is outside the limits; `subject` names it, by default as a flag."""
        if not (value is None and self.optional):
            self.check_limits(subject or f"--{self.name}", value)

    def converted(self, value: Any) -> Any:  # noqa: ANN401 - what a user gives to a function call
        """`value` as plain Python: paths become texts, NumPy's numbers Python's, a dict JSON text.

        Raises: UsageError for a value of another type.
        """
        try:
            return self._converted(value)
        except (TypeError, ValueError, AttributeError):
            raise UsageError(
                f"setting {self.name} takes a value of type {self.type_text()}, not {value!r}"
            ) from None

    def _converted(self, value: Any) -> Any:  # noqa: ANN401 - as above
        if value is None and self.optional:
            return None
        if self.is_list:
            return [operator.index(each) for each in value]
        if isinstance(value, bool) != (self.type is bool):
            raise TypeError
        if self.type is str:
            # A dict is the value of `hparams`.
            is_dict = isinstance(value, dict)
            return json.dumps(value, default=lambda item: item.item()) if is_dict else os.fspath(value)
        if self.type is float and not isinstance(value, int):
            return float(value)
        return value if self.type is bool else operator.index(value)

    def type_text(self) -> str:
        """The type as it stands in annotations, such as "int | None"."""
        name = f"list[{self.type.__name__}]" if self.is_list else self.type.__name__
        return f"{name} | None" if self.optional else name


def setting(
    default: T,
    help: str,
    *,
    kind: Kind = Kind.DESIGN,
    recorded: bool = True,
    compared: bool | None = None,
    in_sweep: InSweep = InSweep.NEVER,
    value_before: object = _SAME,
    **limits: Any,  # noqa: ANN401 - those of Limits
) -> T:
    """Declare a setting: the value of a dataclass field.

    Args:
        default: value where none is given.
        help: meaning, in a few words.
        kind: role in an experiment.
        recorded: whether it is in the `args` of records.
        compared: whether a run directory belongs to one value of it; by default if it is recorded.
        in_sweep: how the runs of a sweep get their value.
        value_before: value of records and run directories that were made before the setting existed; by
            default `default`.
        limits: `choices`, `at_least`, `above`, `at_most`, `below`; see `domainbed.hparams.Limits`.
    """
    metadata = {
        "help": help,
        "kind": kind,
        "recorded": recorded,
        "compared": recorded if compared is None else compared,
        "in_sweep": in_sweep,
        "value_before": default if value_before is _SAME else value_before,
        **limits,
    }
    if isinstance(default, list):
        # Typed as the default, so that type checkers compare it with the field's annotation.
        return dataclasses.field(default_factory=lambda: copy.copy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@functools.cache
def settings_of(config_class: type) -> Mapping[str, Setting]:
    """The settings that a dataclass declares, by name, in their order."""
    hints = get_type_hints(config_class)
    return {
        field.name: Setting(
            name=field.name,
            default=field.default_factory()
            if field.default_factory is not dataclasses.MISSING
            else field.default,
            **_type_of(hints[field.name]),
            **field.metadata,
        )
        for field in dataclasses.fields(config_class)
    }


def _type_of(annotation: Any) -> dict[str, Any]:  # noqa: ANN401 - of a field
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    (kind,) = (each for each in kinds if each is not type(None))
    return {
        "type": (get_args(kind) or (kind,))[0],
        "is_list": bool(get_args(kind)),
        "optional": len(kinds) > 1,
    }


def complete(args: Mapping[str, Any], settings: Mapping[str, Setting]) -> dict[str, Any]:
    """`args` of a record or run directory of any release, with the values of settings that came later."""
    return {name: each.value_before for name, each in settings.items() if each.recorded} | dict(args)
