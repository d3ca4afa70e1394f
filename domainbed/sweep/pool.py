"""A pool of processes that work through a list of command lines.

A `train` command runs in a fork of this process, which has torch loaded already: that saves the seconds
of its start-up at each of hundreds of runs. Anything else goes through the shell.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from domainbed.training.run_dir import RunState, record_failure, run_state

_TRAIN = ["python", "-m", "domainbed.scripts.train"]
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Slot:
    """A place where one command at a time runs.

    Attributes:
        environment: variables that its commands see beside those of this process.
        threads: threads for torch; 0 leaves that to torch.
        fork: whether `train` commands run in forks of this process.
    """

    environment: dict[str, str] = field(default_factory=dict)
    threads: int = 0
    fork: bool = True


def run_commands(commands: Sequence[str], slots: Sequence[Slot]) -> list[int]:
    """Run all commands, one at a time in each slot, with a progress bar on stderr.

    Returns: exit status of each command, in their order (negative: the signal that ended it).

    If this function is left by an exception, Ctrl-C among them, the commands at work are ended first.
    """
    statuses = [0] * len(commands)
    waiting = list(enumerate(commands))[::-1]
    free = list(slots)
    at_work: dict[int, tuple[int, Slot]] = {}
    if any(slot.fork for slot in slots):
        _load_what_runs_need()
    try:
        with tqdm(total=len(commands), desc="runs", unit="run", smoothing=0.05) as bar:
            while waiting or at_work:
                while waiting and free:
                    number, command = waiting.pop()
                    slot = free.pop()
                    at_work[_start(command, slot)] = (number, slot)
                pid, wait_status = os.wait()
                number, slot = at_work.pop(pid)
                free.append(slot)
                statuses[number] = os.waitstatus_to_exitcode(wait_status)
                _tidy_up(commands[number], statuses[number])
                bar.set_postfix(failed=sum(status != 0 for status in statuses))
                bar.update()
    finally:
        for pid in at_work:
            os.kill(pid, signal.SIGTERM)
        for pid in at_work:
            os.waitpid(pid, 0)
    return statuses


def _load_what_runs_need() -> None:
    import domainbed.training.api
    import domainbed.training.run  # noqa: F401


def _start(command: str, slot: Slot) -> int:
    """Start `command`; its process id."""
    words = shlex.split(command)
    if words[:3] == _TRAIN and slot.fork and hasattr(os, "fork"):
        log = _run_directory(words) / "launch.log"
        return _in_fork(lambda: _train(words[3:], slot.threads, log), slot)
    if words[:1] == ["python"]:
        # This interpreter, whatever is called python on the user's path.
        command = shlex.quote(sys.executable) + command.removeprefix("python")
    threads = {"OMP_NUM_THREADS": str(slot.threads)} if slot.threads else {}
    return subprocess.Popen(command, shell=True, env=os.environ | threads | slot.environment).pid


def _in_fork(work: Callable[[], int], slot: Slot) -> int:
    """Do `work` in a fork; the process id. The fork ends with its parent, however that ends."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
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


def _train(argv: Sequence[str], threads: int, log: Path) -> int:
    """Run `domainbed.scripts.train` in this process with its output in `log`; its exit status."""
    import torch

    from domainbed.errors import run_script
    from domainbed.scripts import train

    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    if threads:
        torch.set_num_threads(threads)
    try:
        run_script(lambda _: train.main(argv))
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
    """After a `train` command: remove its log if it is done, else make sure that a reason is kept."""
    words = shlex.split(command)
    if words[:3] != _TRAIN:
        return
    directory = _run_directory(words)
    log = directory / "launch.log"
    if status == 0:
        log.unlink(missing_ok=True)
        return
    if run_state(directory) not in (RunState.FAILED, RunState.DONE):
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
        last = next((line for line in reversed(lines) if line.strip()), "it printed nothing")
        ended = f"ended by signal {-status}" if status < 0 else f"exit status {status}"
        record_failure(directory, f"{ended}: {last.removeprefix('error: ')}")
        (directory / "running.json").unlink(missing_ok=True)


def _run_directory(words: Sequence[str]) -> Path:
    from domainbed.scripts.train import build_parser

    return Path(build_parser().parse_args(words[3:]).output_dir)
