"""The trackers of a run at work. None of them can stop it."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Self

from domainbed.escaping import visible
from domainbed.records.results_file import RESULTS_FILE, read_records
from domainbed.training.stop_requests import Preempted
from domainbed.training.trackers.registry import TRACKERS
from domainbed.training.trackers.tracker import Ending, TrackedRun, Tracker

_LONGEST_REASON = 300
"""Number of characters of an error that a warning shows."""

_log = logging.getLogger(__name__)


class Trackers:
    """A context manager for the trackers of a run, within which `update` passes on its records.

    A tracker that raises is switched off with a warning.

    Args:
        names: their names; repeated ones count once.
        run: the run.
    """

    def __init__(self, names: Iterable[str], run: TrackedRun) -> None:
        self._run = run
        self._names = list(dict.fromkeys(names))
        self._opened: dict[str, Tracker] = {}

    def __enter__(self) -> Self:
        for name in list(self._names):
            self._attempt(name, partial(_check_installed, name))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        ending = Ending.FINISHED if kind is None else Ending.FAILED
        if kind is not None and issubclass(kind, Preempted | KeyboardInterrupt):
            ending = Ending.STOPPED
        for name, tracker in self._opened.items():
            if name in self._names:
                self._attempt(name, partial(tracker.close, ending))

    def update(self) -> None:
        """Pass on the records in the run's results.jsonl. Trackers are opened on the first call.

        They open this late because some start threads, and loader processes have to be forked before.
        """
        for name in list(self._names):
            self._attempt(name, partial(self._update, name))

    def _update(self, name: str) -> None:
        if name not in self._opened:
            self._opened[name] = TRACKERS[name](name, self._run)
        self._opened[name].update(read_records(self._run.path / RESULTS_FILE).records)

    def _attempt(self, name: str, act: Callable[[], None]) -> None:
        """Call `act`. If it raises, warn and switch the tracker `name` off."""
        try:
            act()
        except Exception as error:  # a tracker may raise anything
            self._names.remove(name)
            reason = visible(" ".join(str(error).split()))[:_LONGEST_REASON] or type(error).__name__
            _log.warning("tracker %s is off: %s (the run continues without it)", name, reason)


def _check_installed(name: str) -> None:
    """Raise ModuleNotFoundError if the package that the tracker `name` needs is not installed."""
    tracker = TRACKERS[name]
    if tracker.PACKAGE and importlib.util.find_spec(tracker.PACKAGE) is None:
        wanted = tracker.EXTRA or tracker.PACKAGE
        raise ModuleNotFoundError(f"it needs a package that is not installed: pip install '{wanted}'")
