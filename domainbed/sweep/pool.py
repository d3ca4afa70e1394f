"""A pool of processes that work through a list of command lines.

A `train` command runs in a fork of this process, which has torch loaded already: that saves the seconds
of its start-up at each of hundreds of runs. Anything else goes through the shell.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from domainbed.lib.locks import claim
from domainbed.training.run_dir import RunState, failure_of, record_failure, run_state

BUSY = os.EX_TEMPFAIL
"""Exit status of a `train` command whose directory another process is at work in; no failure of the run."""

_TRAIN = ["python", "-m", "domainbed.scripts.train"]
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Slot:
    """A place where one command at a time runs.

    Attributes:
        environment: variables that its commands see beside those of this process.
        threads: threads for torch; 0 leaves that to torch.
        fork: whether `train` commands run in forks of this process, or in interpreters of their own.
    """

    environment: dict[str, str] = field(default_factory=dict)
    threads: int = 0
    fork: bool = True


class _Bar(tqdm):  # type: ignore[type-arg] # it iterates over nothing
    # No thread that watches the bar: it could hold the bar's lock at the moment of a fork.
    monitor_interval = 0


def run_commands(commands: Sequence[str], slots: Sequence[Slot]) -> list[int]:
    """Run all commands, one at a time in each slot, with a progress bar on stderr.

    What `train` commands print goes to launch.log in their directories, which stays if they fail.

    Returns: exit status of each command, in their order (negative: the signal that ended it; `BUSY`:
        somebody else is at work on this run).

    If this function is left by an exception, Ctrl-C among them, the commands at work are ended first. It
    waits for child processes of any origin: start none of your own beside it.
    """
    statuses = [0] * len(commands)
    waiting = list(enumerate(commands))[::-1]
    free = list(slots)[::-1]
    at_work: dict[int, tuple[int, Slot]] = {}
    if any(slot.fork for slot in slots) and any(_flags_of_train(command) is not None for command in commands):
        _load_what_runs_need()
    try:
        with _Bar(total=len(commands), desc="runs", unit="run", smoothing=0.05) as bar:
            while waiting or at_work:
                while waiting and free:
                    number, command = waiting.pop()
                    slot = free.pop()
                    at_work[_start(command, slot)] = (number, slot)
                pid, wait_status = os.wait()
                if pid not in at_work:
                    continue
                number, slot = at_work.pop(pid)
                free.append(slot)
                statuses[number] = os.waitstatus_to_exitcode(wait_status)
                _tidy_up(commands[number], statuses[number])
                bar.set_postfix(failed=sum(status not in (0, BUSY) for status in statuses))
                bar.update()
    finally:
        for pid in at_work:
            os.kill(pid, signal.SIGTERM)
        for pid in at_work:
            os.waitpid(pid, 0)
    return statuses


def _load_what_runs_need() -> None:
    """Import what each fork would spend seconds on."""
    # torch._dynamo is loaded by torch's optimizers.
    for module in ("torch._dynamo", "torchvision", "domainbed.training.api", "domainbed.training.run"):
        importlib.import_module(module)


def _flags_of_train(command: str) -> list[str] | None:
    """Flags of a `train` command; None if `command` is another one, or has work for the shell in it."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    plain = shlex.join(words) == command
    return words[3:] if plain and words[:3] == _TRAIN else None


def _start(command: str, slot: Slot) -> int:
    """Start `command`; its process id."""
    flags = _flags_of_train(command)
    if flags is None:
        return _in_fork(lambda: _shell(command, slot), slot)
    log = _run_directory(flags) / "launch.log"
    work = (lambda: _train(flags, slot.threads)) if slot.fork else (lambda: _shell(command, slot))
    return _in_fork(lambda: _logged(log, work), slot)


def _in_fork(work: Callable[[], int], slot: Slot) -> int:
    """Do `work` in a fork; the process id. The fork ends with its parent, however that ends."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    with warnings.catch_warnings():
        # Python 3.12 warns of a fork beside threads; those of the numeric libraries hold nothing here.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        # The parent answers Ctrl-C and ends its forks.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)
        os.environ.update(slot.environment)
        status = work()
    finally:
        os._exit(status)


def _shell(command: str, slot: Slot) -> int:
    """Become a shell that runs `command`."""
    if command.split(maxsplit=1)[:1] == ["python"]:
        # This interpreter, whatever is called python on the user's path.
        command = shlex.quote(sys.executable) + command.lstrip().removeprefix("python")
    if slot.threads:
        os.environ["OMP_NUM_THREADS"] = str(slot.threads)
    os.execv("/bin/sh", ["sh", "-c", command])


def _logged(log: Path, work: Callable[[], int]) -> int:
    """Do `work` with stdout and stderr in `log`, whose lock says that this process sees to the run."""
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_RDWR | os.O_CREAT, 0o666)
    if not claim(descriptor):
        return BUSY
    os.ftruncate(descriptor, 0)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    return work()


def _train(flags: Sequence[str], threads: int) -> int:
    """Run `domainbed.scripts.train` in this process; its exit status."""
    import torch

    from domainbed.errors import run_script
    from domainbed.scripts import train

    if threads:
        torch.set_num_threads(threads)
    try:
        run_script(lambda _: train.main(flags))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _tidy_up(command: str, status: int) -> None:
    """After a `train` command: remove its log if it is done, else keep the reason of its end."""
    flags = _flags_of_train(command)
    if flags is None or status == BUSY:
        return
    directory = _run_directory(flags)
    log = directory / "launch.log"
    if status == 0:
        log.unlink(missing_ok=True)
    elif run_state(directory) not in (RunState.DONE, RunState.RUNNING, RunState.PREEMPTED):
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        reason = _reason_in(text)
        if status < 0:
            last = next((line for line in reversed(text.splitlines()) if line.strip()), "nothing")
            ended = f"ended by signal {-status} after: {last.removeprefix('error: ')}"
            record_failure(directory, ended, status)
        elif reason or not failure_of(directory):
            nothing = f"exit status {status}, it left no reason; is the disk full?"
            record_failure(directory, reason or nothing, status)


def _reason_in(log: str) -> str:
    """The error that a log ends with; empty if it ends with something else, or in the middle of a line.

    On a full disk the error itself may be cut off or missing, and what stands last is no reason.
    """
    last = log.splitlines()[-1] if log.endswith("\n") else ""
    is_error = last.startswith("error: ") or "Traceback (most recent call last)" in log or ": error: " in last
    return last.removeprefix("error: ") if is_error else ""


def _run_directory(flags: Sequence[str]) -> Path:
    """The directory that `train` would use; its default where the flags make no sense to it."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--output_dir", default="train_output")
    try:
        return Path(parser.parse_known_args(list(flags))[0].output_dir)
    except argparse.ArgumentError:
        return Path("train_output")
