"""Requests to leave a run, which arrive as signals and are answered between two updates."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Self

from domainbed.training.run_dir import Preempted

_PREEMPTION = (signal.SIGTERM, signal.SIGUSR1)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, at a moment when a checkpoint can be written."""


class Requests:
    """Inside this context SIGTERM, SIGUSR1 and the first Ctrl-C wait until `check` is called.

    A second Ctrl-C ends the process as usual. In a thread other than the main one signals go their own way.

    Args:
        also: more signals that ask to leave.

    Attributes:
        received: what has come.
    """

    def __init__(self, also: Sequence[int] = ()) -> None:
        self.received: list[int] = []
        self._preemption = (*_PREEMPTION, *also)
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (*self._preemption, signal.SIGINT):
                if number != signal.SIGINT or signal.getsignal(number) is signal.default_int_handler:
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type] # what signal.signal returned

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def check(self) -> None:
        """Raise Preempted or Interrupted if a signal has come."""
        if signal.SIGINT in self.received:
            raise Interrupted
        if self.received:
            name = signal.Signals(self.received[0]).name
            raise Preempted(f"told to leave ({name}); the same command goes on from the checkpoint")
