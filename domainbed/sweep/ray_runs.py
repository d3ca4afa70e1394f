"""The runs of one launch as Ray tasks: started, waited for, and started again elsewhere if a node is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domainbed.errors import UsageError
from domainbed.sweep.devices import Slot
from domainbed.sweep.job import run_directory
from domainbed.sweep.local import run_commands
from domainbed.sweep.pool import RunsBar, Task
from domainbed.sweep.process import BUSY, GRACE_SECONDS, PREEMPTED
from domainbed.training.run_state import RunState, failure_count, last_failure, record_failure, run_state
from domainbed.training.stop_requests import Preempted, StopRequests

LEFT = -signal.SIGTERM
"""Status of a task whose Ray worker received SIGTERM, as nodes that leave the cluster send it."""

_POLL_SECONDS = 1.0
_FINAL = (0, PREEMPTED, UsageError.exit_status)
"""Statuses after which a run is not started again."""
_EXPORTED = ("DOMAINBED_", "PYTHONPATH")
"""Beginnings of the names of variables that runs get from the launching process, whatever their node has."""


@dataclass(frozen=True)
class TaskResources:
    """What Ray reserves for a run.

    Attributes:
        cpus: number of CPUs. A run has as many threads, but at least one.
        gpus: number of GPUs; a fraction shares one.
        memory: bytes; None: none are reserved.
        restarts: number of times that a run is started again because its worker or node was lost.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int | None = None
    restarts: int = 10


class RayRuns:
    """The commands of a launch, each a task of the Ray cluster that this process is connected to.

    Args:
        commands: command lines.
        resources: what each takes.
        retries: number of times that a failed command is started again.
        time_limit: minutes that a command may take; None: no limit.

    Attributes:
        statuses: exit status of each command, as `local.run_commands` returns them.
        finished: number of commands that need no more work.
        failed: number of finished commands that failed.
    """

    def __init__(
        self, commands: Sequence[str], resources: TaskResources, retries: int, time_limit: float | None
    ) -> None:
        import ray

        self.statuses = [0] * len(commands)
        self.finished, self.failed = 0, 0
        self._tasks = [Task(number, command) for number, command in enumerate(commands)]
        self._retries = retries
        self._restarts = [resources.restarts] * len(commands)
        self._settings = (str(Path.cwd()), exported(), max(1, int(resources.cpus)), time_limit)
        self._remote = ray.remote(run_one)
        self._options = {
            "num_cpus": resources.cpus,
            "num_gpus": resources.gpus,
            "memory": resources.memory,
            "max_retries": resources.restarts,
        }
        self._in_flight: dict[Any, Task] = {}
        self._elsewhere: list[Task] = []

    def work(self, requests: StopRequests) -> None:
        """Run all commands, with a progress bar on stderr.

        Raises: Preempted or Interrupted when `requests` has received a signal. On any exception the tasks
            are cancelled first, and their runs write checkpoints.
        """
        try:
            for task in self._tasks:
                self._start(task)
            with RunsBar(len(self._tasks)) as bar:
                while self._in_flight or self._elsewhere:
                    requests.check()
                    self._collect_finished()
                    self._recheck_elsewhere()
                    bar.show(self)
        finally:
            self._cancel()

    def _start(self, task: Task) -> None:
        directory = run_directory(task.command)
        name = directory.name if directory else "command"
        reference = self._remote.options(name=name, **self._options).remote(task.command, *self._settings)
        self._in_flight[reference] = task

    def _collect_finished(self) -> None:
        """Wait for a moment, and take the statuses of the tasks that have ended."""
        import ray

        if not self._in_flight:
            time.sleep(_POLL_SECONDS)
            return
        waiting = list(self._in_flight)
        ended, _ = ray.wait(waiting, num_returns=len(waiting), timeout=_POLL_SECONDS, fetch_local=False)
        for reference in ended:
            task = self._in_flight.pop(reference)
            self._report(task, self._status(reference, task))

    def _status(self, reference: Any, task: Task) -> int:  # noqa: ANN401 - of a library without types
        import ray

        try:
            return int(ray.get(reference))
        except ray.exceptions.TaskCancelledError:
            return PREEMPTED
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            status = UsageError.exit_status if isinstance(cause, UsageError) else 1
            _record(task, f"Ray could not do the run: {cause}", status)
            return status

    def _report(self, task: Task, status: int) -> None:
        """Start a run again that failed or whose node leaves; recheck one that another process works on."""
        if status == BUSY:
            self._elsewhere.append(task)
        elif status == LEFT and self._restarts[task.number]:
            self._restarts[task.number] -= 1
            self._start(task)
        elif status not in (*_FINAL, LEFT) and task.failures < self._retries:
            self._start(Task(task.number, task.command, task.failures + 1))
        else:
            self._finish(task, PREEMPTED if status == LEFT else status)

    def _recheck_elsewhere(self) -> None:
        """Take over the runs of processes that died, also of those on a lost node."""
        tasks, self._elsewhere = self._elsewhere, []
        for task in tasks:
            state = _state(task)
            if state is RunState.RUNNING:
                self._elsewhere.append(task)
            elif state is RunState.FAILED and (directory := run_directory(task.command)):
                self._report(task, int(last_failure(directory).get("exit_status") or 1))
            else:
                self._start(task)

    def _finish(self, task: Task, status: int) -> None:
        self.statuses[task.number] = status
        self.finished += 1
        self.failed += status not in (0, PREEMPTED)

    def _cancel(self) -> None:
        """Cancel the tasks that have not ended, and wait until their runs have written checkpoints."""
        import ray

        waiting = list(self._in_flight)
        for reference in waiting:
            ray.cancel(reference)
        if waiting:
            ray.wait(waiting, num_returns=len(waiting), timeout=GRACE_SECONDS, fetch_local=False)


def run_one(
    command: str, folder: str, environment: dict[str, str], threads: int, time_limit: float | None
) -> int:
    """Run `command` in this Ray worker's node, in a process of its own that ends with the worker.

    Args:
        command: a command line.
        folder: where it starts.
        environment: variables to add to its environment.
        threads: number of threads for torch.
        time_limit: minutes that it may take; None: no limit.

    Returns: its exit status; BUSY if another process works on its run, 0 if one has finished it, LEFT if this
        worker received SIGTERM.

    Raises:
        UsageError: the node lacks the folder.
        Interrupted: the task was cancelled. The run has written its checkpoint and released its claim.
    """
    if not Path(folder).is_dir():
        raise UsageError(
            f"{folder} does not exist on {socket.gethostname()}; launch in a folder that all nodes share"
        )
    with contextlib.chdir(folder):
        state = _state(Task(0, command))
        if state in (RunState.DONE, RunState.RUNNING):
            return 0 if state is RunState.DONE else BUSY
        try:
            slot = Slot(environment=environment, threads=threads, fork=False)
            return run_commands([command], [slot], time_limit=time_limit)[0]
        except Preempted:
            return LEFT


def exported() -> dict[str, str]:
    """Variables of this process that runs on other nodes get. Paths to look for modules are absolute."""
    found = {name: value for name, value in os.environ.items() if name.startswith(_EXPORTED)}
    if "PYTHONPATH" in found:
        entries = [str(Path(entry).absolute()) for entry in found["PYTHONPATH"].split(os.pathsep) if entry]
        found["PYTHONPATH"] = os.pathsep.join(entries)
    return found


def _state(task: Task) -> RunState | None:
    directory = run_directory(task.command)
    return None if directory is None else run_state(directory)


def _record(task: Task, reason: str, status: int) -> None:
    """Record a failure that the run's own process could not record."""
    directory = run_directory(task.command)
    if directory is not None and run_state(directory) not in (RunState.DONE, RunState.RUNNING):
        record_failure(directory, reason, status, failure_count(directory) + 1)
