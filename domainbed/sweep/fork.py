"""Start a command in a fork of this process.

A run starts in the fork itself, where torch is loaded already, which saves seconds per run, or in a new
interpreter where threads that this process had could not be stopped. Other commands are executed by a shell.
If this process dies, its forks receive SIGTERM.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from domainbed.sweep.devices import Slot
from domainbed.sweep.job import flags_of_train, run_directory
from domainbed.training.claims import active_owner
from domainbed.training.run_dir import Busy

LOG = "launch.log"
"""File in a run's directory with the output of its process."""

_PR_SET_PDEATHSIG = 1
_OMP_PAUSE_HARD = 2  # OpenMP 5.0, section 3.7
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


def start(command: str, slot: Slot) -> int:
    """Start `command` in `slot` and return its process id. A run's output goes to `LOG` in its directory."""
    flags, directory = flags_of_train(command), run_directory(command)
    if flags is None or directory is None:
        return _fork(lambda: _exec_shell(command, slot), slot)
    # One thread needs no OpenMP threads, which an old library cannot stop.
    if slot.fork and (slot.threads == 1 or _pause_openmp() is not None):
        _preload()
        return _fork(lambda: _log_output(directory / LOG, lambda: _train(flags, slot.threads)), slot)
    return _fork(lambda: _log_output(directory / LOG, lambda: _exec_python(flags, slot)), slot)


def _preload() -> None:
    """Import the modules that would take each fork seconds to import."""
    # torch's optimizers import torch._dynamo.
    for module in ("torch._dynamo", "torchvision", "domainbed.training.api", "domainbed.training.run"):
        importlib.import_module(module)


def _fork(work: Callable[[], int], slot: Slot) -> int:
    """Fork, call `work` in the child and exit with the status it returns. Returns the child's process id.

    The child receives SIGTERM if this process dies.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    _stop_openmp_threads()
    parent = os.getpid()
    # Block signals until the child has its own handlers: it must not run this process's handlers.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (*_STOP_SIGNALS, signal.SIGUSR2))
    with warnings.catch_warnings():
        # Python 3.12 warns about forks of a process with threads. Here these are idle threads of numeric
        # libraries, which hold no locks.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return pid
    status = 1
    try:
        # A terminal or Slurm sends these to the whole process group. The parent handles them and stops
        # its children.
        for number in (signal.SIGINT, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        for number in _STOP_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it died before the call above
                os._exit(1)
        os.environ.update(slot.environment)
        status = work()
    finally:
        os._exit(status)


def _stop_openmp_threads() -> None:
    """Stop torch's idle OpenMP threads. They do not exist in a fork, which would wait for them forever."""
    pause = _pause_openmp()
    if pause is not None:
        pause(_OMP_PAUSE_HARD)


def _pause_openmp() -> Callable[[int], int] | None:
    """OpenMP's function that stops its threads; None before OpenMP 5.0, as in the library of torch 2.6."""
    return getattr(ctypes.CDLL(None), "omp_pause_resource_all", None)


def _exec_shell(command: str, slot: Slot) -> int:
    """Replace this process by a shell that executes `command`."""
    if command.split(maxsplit=1)[:1] == ["python"]:
        # This interpreter, which need not be the `python` on the user's path.
        command = shlex.quote(sys.executable) + command.lstrip().removeprefix("python")
    _limit_threads(slot)
    os.execv("/bin/sh", ["sh", "-c", command])


def _exec_python(flags: Sequence[str], slot: Slot) -> int:
    """Replace this process by a Python interpreter that executes `domainbed.scripts.train`."""
    _limit_threads(slot)
    os.execv(sys.executable, [sys.executable, "-m", "domainbed.scripts.train", *flags])


def _limit_threads(slot: Slot) -> None:
    if slot.threads:
        os.environ["OMP_NUM_THREADS"] = str(slot.threads)


def _log_output(log: Path, work: Callable[[], int]) -> int:
    """Call `work` with stdout and stderr redirected to `log`, unless another process works on the run."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if active_owner(log.parent) is not None:
        return Busy.exit_status
    # Two processes may both get here and append to the log. Only the one that takes the claim continues.
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
    from domainbed.training.train_command import keep_freed_memory, main

    # Forks share tqdm's default lock: if one were killed while holding it, all others would wait forever.
    tqdm.set_lock(threading.RLock())
    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    try:
        run_script(main, flags)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0
