"""One command in a process of its own, a fork of this one, whose end it does not outlive.

A `train` command runs in the fork itself, which has torch loaded already: that saves the seconds of its
start-up at each of hundreds of runs. Anything else goes through the shell.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from domainbed.training.claims import at_work

BUSY = os.EX_TEMPFAIL
"""Exit status of a `train` command whose directory another process is at work in; no failure of the run."""
LOG = "launch.log"

_TRAIN = ["python", "-m", "domainbed.scripts.train"]
_PR_SET_PDEATHSIG = 1
_OMP_PAUSE_HARD = 2  # OpenMP 5.0, section 3.7
_REQUESTS = (signal.SIGTERM, signal.SIGUSR1)


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


def load_what_runs_need() -> None:
    """Import what each fork would spend seconds on."""
    # torch._dynamo is loaded by torch's optimizers.
    for module in ("torch._dynamo", "torchvision", "domainbed.training.api", "domainbed.training.run"):
        importlib.import_module(module)


def flags_of_train(command: str) -> list[str] | None:
    """Flags of a `train` command; None if `command` is another one, or has work for the shell in it."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    plain = shlex.join(words) == command
    return words[3:] if plain and words[:3] == _TRAIN else None


def run_directory(command: str) -> Path | None:
    """The directory of a `train` command (its default where the flags make no sense to it), or None."""
    flags = flags_of_train(command)
    if flags is None:
        return None
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--output_dir", default="train_output")
    try:
        return Path(parser.parse_known_args(flags)[0].output_dir)
    except argparse.ArgumentError:
        return Path("train_output")


def start(command: str, slot: Slot) -> int:
    """Start `command`; its process id. What `train` prints goes to launch.log in its directory."""
    flags, directory = flags_of_train(command), run_directory(command)
    if flags is None or directory is None:
        return _in_fork(lambda: _shell(command, slot), slot)
    log = directory / LOG
    work = (lambda: _train(flags, slot.threads)) if slot.fork else (lambda: _interpreter(flags, slot))
    return _in_fork(lambda: _logged(log, work), slot)


def _in_fork(work: Callable[[], int], slot: Slot) -> int:
    """Do `work` in a fork; the process id. The fork ends with its parent, however that ends."""
    sys.stdout.flush()
    sys.stderr.flush()
    _end_idle_threads()
    parent = os.getpid()
    # A request that reaches the fork before its own handlers stand must not go to those of the parent.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (*_REQUESTS, signal.SIGUSR2))
    with warnings.catch_warnings():
        # Python 3.12 warns of a fork beside threads; those of the numeric libraries hold nothing here.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return pid
    status = 1
    try:
        # The parent answers these, which a terminal or Slurm sends to the whole group, and ends its forks.
        for number in (signal.SIGINT, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        for number in _REQUESTS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)
        os.environ.update(slot.environment)
        status = work()
    finally:
        os._exit(status)


def _end_idle_threads() -> None:
    """End those that torch keeps between operations: a fork has none of them, and would wait for them."""
    pause = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None)
    if pause is not None:
        pause(_OMP_PAUSE_HARD)


def _shell(command: str, slot: Slot) -> int:
    """Become a shell that runs `command`."""
    if command.split(maxsplit=1)[:1] == ["python"]:
        # This interpreter, whatever is called python on the user's path.
        command = shlex.quote(sys.executable) + command.lstrip().removeprefix("python")
    _limit_threads(slot)
    os.execv("/bin/sh", ["sh", "-c", command])


def _interpreter(flags: Sequence[str], slot: Slot) -> int:
    """Become an interpreter that runs `domainbed.scripts.train`."""
    _limit_threads(slot)
    os.execv(sys.executable, [sys.executable, *_TRAIN[1:], *flags])


def _limit_threads(slot: Slot) -> None:
    if slot.threads:
        os.environ["OMP_NUM_THREADS"] = str(slot.threads)


def _logged(log: Path, work: Callable[[], int]) -> int:
    """Do `work` with stdout and stderr in `log`, unless somebody is at work whose log it is."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if at_work(log.parent) is not None:
        return BUSY
    # Of two that come here at once both may append: the claim is what lets one of them go on.
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    return work()


def _train(flags: Sequence[str], threads: int) -> int:
    """Run `domainbed.scripts.train` in this process; its exit status."""
    import torch
    from tqdm import tqdm

    from domainbed.errors import run_script
    from domainbed.scripts import train
    from domainbed.training.memory import keep_freed_memory

    # tqdm's own lock is shared with forks: one that is killed while it holds it would hold up all others.
    tqdm.set_lock(threading.RLock())
    keep_freed_memory()
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
