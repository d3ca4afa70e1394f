"""A list of command lines as a pool's queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from domainbed.errors import UsageError
from domainbed.sweep.pool import TIME_LIMIT, Pool, Task
from domainbed.sweep.process import BUSY, Slot, run_directory
from domainbed.training.run_dir import RunState, run_state
from domainbed.training.signals import Requests

GOOD_OR_FINAL = (0, BUSY, TIME_LIMIT, UsageError.exit_status)
"""Exit statuses after which a command is not started again."""


def run_commands(
    commands: Sequence[str], slots: Sequence[Slot], retries: int = 0, time_limit: float | None = None
) -> list[int]:
    """Run all commands, one at a time in each slot, with a progress bar on stderr.

    A run that others have finished or are at work on when its turn comes is left to them.

    Args:
        commands: what to run.
        slots: where.
        retries: how often a command that failed is started again. One that was refused (exit status 2) or
            told to leave is not.
        time_limit: minutes that a command may take.

    Returns: exit status of each command, in their order (negative: the signal that ended it; `BUSY`:
        somebody else is at work on this run; `TIME_LIMIT`: it can go on at another launch).

    Raises: Preempted (SIGTERM, SIGUSR1) or Interrupted (Ctrl-C), after the commands at work have left.
    """
    queue = Commands(commands, retries)
    with Requests() as requests:
        Pool(queue, slots, time_limit).work(requests)
    return queue.statuses


class Commands:
    """The queue of `run_commands`; `statuses` are what it returns."""

    def __init__(self, commands: Sequence[str], retries: int) -> None:
        self.statuses = [0] * len(commands)
        self.total, self.finished, self.failed = len(commands), 0, 0
        self._retries = retries
        self._waiting = deque(Task(number, command) for number, command in enumerate(commands))
        # Runs that are done already are left to `train`, which sees whether they are the same runs.
        self._done_before = {number for number, state in enumerate(map(_state, commands)) if _is_done(state)}

    def take(self) -> Task | None:
        """The next command that others have not seen to."""
        while self._waiting:
            task = self._waiting.popleft()
            state = _state(task.command)
            if state is RunState.RUNNING:
                self._settle(task, BUSY)
            elif _is_done(state) and task.number not in self._done_before:
                self._settle(task, 0)
            else:
                return task
        return None

    def ended(self, task: Task, status: int) -> None:
        """Try again what failed, after all others; keep the status of the rest."""
        if status not in GOOD_OR_FINAL and task.tries < self._retries:
            self._waiting.append(Task(task.number, task.command, task.tries + 1))
        else:
            self._settle(task, status)

    def exhausted(self) -> bool:
        """Whether every command was taken."""
        return not self._waiting

    def _settle(self, task: Task, status: int) -> None:
        self.statuses[task.number] = status
        self.finished += 1
        self.failed += status not in (0, BUSY, TIME_LIMIT)


def _state(command: str) -> RunState | None:
    directory = run_directory(command)
    return None if directory is None else run_state(directory)


def _is_done(state: RunState | None) -> bool:
    return state is RunState.DONE
