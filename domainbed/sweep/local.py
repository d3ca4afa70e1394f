"""The launchers `local` and `multi_gpu`, which run commands on this machine."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from domainbed.errors import UsageError
from domainbed.sweep.devices import Slot, gpu_slots, gpus, local_slots
from domainbed.sweep.job import run_directory
from domainbed.sweep.launchers import DEFAULTS, Launcher, LaunchOptions
from domainbed.sweep.pool import Pool, Task
from domainbed.sweep.process import BUSY, PREEMPTED
from domainbed.training.run_state import RunState, run_state
from domainbed.training.stop_requests import AFTER_CHECKPOINTS, StopRequests

_FINAL = (0, BUSY, PREEMPTED, UsageError.exit_status)
"""Exit statuses after which a command is not retried."""


class LocalLauncher(Launcher):
    """Run several commands at a time on this machine, by default one per core, or one on a GPU."""

    waits = True
    flags = ("workers", "retries", "time_limit")

    def __call__(self, commands: Sequence[str], options: LaunchOptions = DEFAULTS) -> list[int]:
        """Run all commands; returns their exit statuses as `run_commands` does."""
        return run_commands(commands, self.slots(options), options.retries, options.time_limit)

    def concurrency(self, options: LaunchOptions) -> int:
        return len(self.slots(options))

    def slots(self, options: LaunchOptions) -> list[Slot]:
        """The slots to run commands in."""
        return local_slots(options.workers)


class MultiGPULauncher(LocalLauncher):
    """Run `workers` commands at a time on each GPU of this machine, by default one."""

    def __call__(self, commands: Sequence[str], options: LaunchOptions = DEFAULTS) -> list[int]:
        """Run all commands; returns their exit statuses as `run_commands` does.

        Raises: UsageError without a GPU.
        """
        self.check()
        print("WARNING: using experimental multi_gpu_launcher.")
        return super().__call__(commands, options)

    def check(self) -> None:
        if not gpus():
            raise UsageError(
                "launcher multi_gpu needs a GPU, and none was found; use --command_launcher local"
            )

    def slots(self, options: LaunchOptions) -> list[Slot]:
        return gpu_slots(options.workers)


local_launcher = LocalLauncher()
multi_gpu_launcher = MultiGPULauncher()


def run_commands(
    commands: Sequence[str], slots: Sequence[Slot], retries: int = 0, time_limit: float | None = None
) -> list[int]:
    """Run all commands, one at a time in each slot, with a progress bar on stderr.

    A run that another process has finished or is working on by the time its turn comes is skipped.

    Args:
        commands: command lines.
        slots: where to run them.
        retries: number of times that a failed command is started again. Commands that end with
            `UsageError`'s exit status or `PREEMPTED` are not.
        time_limit: minutes that a command may take.

    Returns: exit status of each command, in order. A negative status is the signal that ended the command,
        `BUSY` means that another process works on the run, and `PREEMPTED` that a relaunch resumes it.

    Raises:
        Preempted: SIGTERM or SIGUSR1 was received. The running commands were stopped.
        Interrupted: Ctrl-C. The running commands were stopped.
    """
    queue = CommandQueue(commands, retries)
    with StopRequests(notice=AFTER_CHECKPOINTS) as requests:
        Pool(queue, slots, time_limit).work(requests)
    return queue.statuses


class CommandQueue:
    """The queue of `run_commands`.

    Attributes:
        statuses: exit status of each command, as `run_commands` returns them.
    """

    def __init__(self, commands: Sequence[str], retries: int) -> None:
        self.statuses = [0] * len(commands)
        self.total, self.finished, self.failed = len(commands), 0, 0
        self._retries = retries
        self._waiting = deque(Task(number, command) for number, command in enumerate(commands))
        # These are started all the same: `train` checks that the finished run had the same settings.
        self._done_before = {
            number for number, command in enumerate(commands) if _state(command) is RunState.DONE
        }

    def take(self) -> Task | None:
        """The next command that no other process has finished or is working on."""
        while self._waiting:
            task = self._waiting.popleft()
            state = _state(task.command)
            if state is RunState.RUNNING:
                self._finish(task, BUSY)
            elif state is RunState.DONE and task.number not in self._done_before:
                self._finish(task, 0)
            else:
                return task
        return None

    def report(self, task: Task, status: int) -> None:
        """Queue a failed command again after all others, up to `retries` times."""
        if status not in _FINAL and task.failures < self._retries:
            self._waiting.append(Task(task.number, task.command, task.failures + 1))
        else:
            self._finish(task, status)

    def exhausted(self) -> bool:
        """Whether no command is waiting."""
        return not self._waiting

    def _finish(self, task: Task, status: int) -> None:
        self.statuses[task.number] = status
        self.finished += 1
        self.failed += status not in (0, BUSY, PREEMPTED)


def _state(command: str) -> RunState | None:
    """State of the run that `command` starts; None if it is not a `train` command."""
    directory = run_directory(command)
    return None if directory is None else run_state(directory)
