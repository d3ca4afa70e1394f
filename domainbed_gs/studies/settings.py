"""Settings of a measurement, declared as flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from domainbed.errors import UsageError, misspelt
from domainbed.training.settings import Flag, flags_of


class MeasurementSettings:
    """Base of dataclasses whose fields are declared by `domainbed.training.settings.flag`."""

    @classmethod
    def from_keywords(cls, settings: Mapping[str, object]) -> Self:
        """Settings by name; the others have their defaults.

        Raises: UsageError for an unknown name or a value of a wrong type.
        """
        flags = _flags(cls)
        for name in settings:
            if name not in flags:
                raise misspelt(f"unknown setting {name!r}", name, flags)
        return cls(**{name: flags[name].converted(value) for name, value in settings.items()})

    def check(self) -> None:
        """Check the values. A list must have one, and none twice. Raises UsageError."""
        for name, declared in _flags(type(self)).items():
            value = getattr(self, name)
            declared.check(value)
            if declared.is_list and not value:
                raise UsageError(
                    f"--{name} names nothing; give one or more of {', '.join(map(str, declared.choices))}"
                )
            if declared.is_list and len(set(value)) < len(value):
                twice = next(each for each in value if value.count(each) > 1)
                raise UsageError(f"--{name} names {twice} twice; give each once")

    def columns(self) -> dict[str, object]:
        """The settings as columns of a table: values of a list are joined by spaces."""
        values = {name: getattr(self, name) for name in _flags(type(self))}
        return {name: " ".join(value) if isinstance(value, list) else value for name, value in values.items()}


def _flags(declaring_class: type) -> Mapping[str, Flag]:
    return flags_of(declaring_class)  # mypy does not take `type[Self]` for hashable
