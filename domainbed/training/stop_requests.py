"""Requests to stop a run. They arrive as signals and are answered between two updates."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Self

from domainbed.errors import DomainBedError

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_RESUME = "Run the same command to resume from the checkpoint."
_STDERR = 2

AFTER_STEP = "Stopping after this step; press Ctrl-C again to stop at once. To go on, run the same command."
"""What a run says when Ctrl-C is pressed."""
AFTER_STEP_UNKEPT = (
    "Stopping after this step; press Ctrl-C again to stop at once. Nothing is kept, since the run has no "
    "output_dir."
)
"""What a run without a directory of its own says when Ctrl-C is pressed."""
AFTER_CHECKPOINTS = (
    "Stopping when the runs have written checkpoints; press Ctrl-C again to stop at once. To go on, "
    "run the same command."
)
"""What a sweep says when Ctrl-C is pressed."""


class Preempted(DomainBedError):
    """The run was asked to stop (SIGTERM, SIGUSR1). It wrote a checkpoint that it can resume from."""

    exit_status = 3


class Interrupted(KeyboardInterrupt):
    """Ctrl-C was pressed. Raised at a moment when a checkpoint can be written."""


class StopRequests:
    """A context manager that holds back SIGTERM, SIGUSR1 and the first Ctrl-C until `check` is called.

    A second Ctrl-C ends the process as usual. Outside the main thread, signals are not handled here.

    Args:
        extra_signals: further signals that ask the run to stop.
        notice: a line that the first Ctrl-C writes to stderr at once; empty for none.

    Attributes:
        received: numbers of the signals received so far.
    """

    def __init__(self, extra_signals: Sequence[int] = (), notice: str = "") -> None:
        # A terminal shows ^C, behind the progress bar if there is one.
        self._notice = f"\n{notice}\n".encode() if notice else b""
        self.received: list[int] = []
        self._stop_signals = (*_STOP_SIGNALS, *extra_signals)
        self._previous_handlers: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (*self._stop_signals, signal.SIGINT):
                if number != signal.SIGINT or signal.getsignal(number) is signal.default_int_handler:
                    self._previous_handlers[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type] # what signal.signal returned

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            # Python's streams raise an error if the signal interrupts a write to them.
            with contextlib.suppress(OSError):
                os.write(_STDERR, self._notice)

    def check(self) -> None:
        """Raise Preempted or Interrupted if a signal was received."""
        if signal.SIGINT in self.received:
            raise Interrupted(f"Interrupted. {_RESUME}")
        if self.received:
            name = signal.Signals(self.received[0]).name
            raise Preempted(f"Stopped by {name}. {_RESUME}")
