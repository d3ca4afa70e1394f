"""Registry of trackers by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from domainbed.errors import UnknownName
from domainbed.registry import Registry

if TYPE_CHECKING:
    from domainbed.training.trackers.tracker import Tracker

TRACKERS: Registry[type[Tracker]] = Registry.of_module(
    "Tracker", home="domainbed.training.trackers", first=("tensorboard", "mlflow", "wandb")
)


def check_names(names: Sequence[str]) -> None:
    """Raise UnknownName for a name that no tracker has."""
    for name in names:
        if name not in TRACKERS:
            raise UnknownName(TRACKERS.kind, name, TRACKERS)
