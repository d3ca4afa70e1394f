"""The pretrained weights that a featurizer starts from by default, and whether they are on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from domainbed.errors import UsageError

T = TypeVar("T")
_ATTRIBUTE = "default_weights"


class WeightsSource(Protocol):
    """Where pretrained weights come from."""

    @property
    def name(self) -> str:
        """Name of the weights, for records and messages."""

    def find(self) -> Path | None:
        """Path of the file on this machine, or None. Does not use the network."""

    def download(self) -> Path:
        """Download the file and return its path. Raises UsageError if that fails."""


def starts_from(source: Callable[[], WeightsSource]) -> Callable[[T], T]:
    """Decorator that declares the pretrained weights of a featurizer; a class's subclasses inherit it.

    Args:
        source: returns them; called only when it is needed, because the library that knows them is heavy.
    """

    def declare(featurizer: T) -> T:
        setattr(featurizer, _ATTRIBUTE, staticmethod(source) if isinstance(featurizer, type) else source)
        return featurizer

    return declare


def weights_at_hand(featurizer: object) -> str:
    """Whether the default weights of a featurizer are on this machine: a few words for a list.

    Does not use the network.
    """
    source: Callable[[], WeightsSource] | None = getattr(featurizer, _ATTRIBUTE, None)
    if source is None:
        return "no pretrained weights"
    try:
        weights = source()
        path = weights.find()
    except UsageError as error:  # the library is not installed
        return f"weights not at hand: {error}"
    return f"weights not at hand: {weights.name}" if path is None else f"weights at hand: {path}"
