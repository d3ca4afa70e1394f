"""Train a run by a function call: for the command line, other programs, and notebooks."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainbed.console import Tee
from domainbed.errors import DomainBedError, RunError, UsageError
from domainbed.escaping import visible
from domainbed.training.config import TrainConfig
from domainbed.training.config_checks import check_config, from_settings
from domainbed.training.out_of_memory import is_out_of_memory, out_of_memory
from domainbed.training.run_dir import RunDir
from domainbed.training.run_hparams import resolved_hparams
from domainbed.training.run_state import RunState, run_state
from domainbed.training.stop_requests import Interrupted

if TYPE_CHECKING:
    import pandas as pd

    from domainbed.training.loop import Loop
    from domainbed.training.run import Run

    MakeLoop = Callable[[Run, RunDir], Loop]

_log = logging.getLogger(__name__)

_COMPILER_MODULES = ("torch._dynamo", "torch._inductor")
_COMPILER_MESSAGES = ("does not currently support double backward", "compiled with non-empty donated buffers")
"""Messages of errors raised when a compiled network is differentiated twice."""
_SINGLE_VALUE = "Expected more than 1 value per channel when training"
"""Message of the error raised by a batch norm."""


def train(
    config: TrainConfig,
    make_loop: MakeLoop | None = None,
    extra_settings: Mapping[str, Any] | None = None,
) -> None:
    """Train a run in `config.output_dir`. Output is printed, and copied to out.txt and err.txt there.

    An unfinished run resumes from its checkpoint, or starts from the beginning if it has none. A finished run
    is left as it is. Processes started by torchrun share the run.

    Args:
        config: settings of the run.
        make_loop: creates the training loop, by default `loop.Loop`. For runs in a single process.
        extra_settings: settings of that loop. Like those in `config`, they must not change when a run
            resumes.

    Raises:
        UsageError: settings, data or output directory cannot be used, or another thread trains.
        RunError: the run could not be finished. Its records are kept.
        Preempted: the run was asked to stop. The same call resumes it.
    """
    with _only_one_thread_trains():
        if launched_by_torchrun():
            _train_in_group(config)
            return
        check_config(config)
        _train(config, make_loop, extra_settings)


@contextlib.contextmanager
def _only_one_thread_trains() -> Iterator[None]:
    """Within the context, other threads of this process cannot enter it.

    Raises: UsageError if another thread has entered it.
    """
    if not _training.acquire(blocking=False):
        raise UsageError(
            "another thread of this process is training, and threads share one random number generator, so "
            "that both runs would get other numbers; give each run a process of its own"
        )
    try:
        yield
    finally:
        _training.release()


def _renew_lock() -> None:
    """In a fork of this process, no other thread exists."""
    global _training
    _training = threading.RLock()


_training = threading.RLock()
os.register_at_fork(after_in_child=_renew_lock)


def launched_by_torchrun() -> bool:
    """Whether torchrun started this process together with others that share its run."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def _train_in_group(config: TrainConfig) -> None:
    """Train as one of several processes."""
    from domainbed.training import distributed_run
    from domainbed.training.torchrun import TorchrunGroup

    with TorchrunGroup() as group:
        if group.rank == 0:
            check_config(config)
            distributed_run.check_shareable(config, group)
            _train(group.with_own_device(config), partial(distributed_run.leader_loop, group=group))
        else:
            with _one_line_errors():
                distributed_run.follow(config, group)


def _train(
    config: TrainConfig,
    make_loop: MakeLoop | None = None,
    extra_settings: Mapping[str, Any] | None = None,
) -> None:
    settings = {**config.compared(), **(extra_settings or {})}
    with _resumable(), RunDir(Path(config.output_dir), settings, config.restart) as directory:
        if directory.finished:
            print(f"{directory.path} already holds this run, finished. Use --restart to run it again.")
            return
        with _one_line_errors(), _output_copied_to(directory.path):
            from domainbed.training import loop
            from domainbed.training.run import build
            from domainbed.training.run_description import describe
            from domainbed.training.summary import summary
            from domainbed.training.validation_parts import validation_warning

            if directory.checkpoint is None:
                _print_settings(config)
            run = build(config)
            if directory.checkpoint is None:
                for line in describe(run):
                    print(line)
                if warning := validation_warning(run.dataset, run.splits, run.sources, config):
                    _log.warning("warning: %s", warning)
            else:
                print(f"Resumes after {directory.checkpoint['updates']} of {run.n_steps} updates.")
            loop.train(run, directory, make_loop)
            print("\n".join(visible(line) for line in summary(directory.path)))


def train_to_frame(settings: Mapping[str, Any]) -> pd.DataFrame:
    """Train a run and return its records (this is `domainbed.train`).

    stderr shows where files go and a progress bar. What the command prints goes to out.txt only.

    Args:
        settings: fields of `TrainConfig`. Without `output_dir`, nothing is left on disk.
    """
    from domainbed.records.results_file import RESULTS_FILE, read_records
    from domainbed.records.sweep_records import to_frame

    is_kept = "output_dir" in settings
    with _only_one_thread_trains(), contextlib.ExitStack() as stack:
        if not is_kept:
            settings = {**settings, "output_dir": stack.enter_context(tempfile.TemporaryDirectory())}
        config = from_settings(dict(settings))
        print(visible(_where(config, is_kept)), file=sys.stderr)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                train(config, partial(_shown_loop, is_kept=is_kept))
        except Interrupted:
            if is_kept:
                raise
            raise Interrupted("Interrupted. Nothing is kept, since the run has no output_dir.") from None
        return to_frame(read_records(Path(config.output_dir) / RESULTS_FILE).records)


def _where(config: TrainConfig, is_kept: bool) -> str:
    """A line that says where the files of a run go."""
    if not is_kept:
        place = "no files are kept, since no output_dir is given."
    elif run_state(Path(config.output_dir)) is RunState.DONE and not config.restart:
        place = f"{config.output_dir} already holds the finished run; restart=True runs it again."
    else:
        place = f"files go to {config.output_dir}."
    return f"{config.algorithm} on {config.dataset}: {place}"


def _shown_loop(run: Run, directory: RunDir, is_kept: bool) -> Loop:
    from domainbed.training import loop

    return (loop.ShownLoop if is_kept else loop.UnkeptLoop)(run, directory)


@contextlib.contextmanager
def _resumable() -> Iterator[None]:
    """Say how to go on after a Ctrl-C that was not held back until a checkpoint was written."""
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt:
        raise Interrupted(
            "Interrupted. Run the same command to resume from the last checkpoint, if there is one."
        ) from None


@contextlib.contextmanager
def _output_copied_to(path: Path) -> Iterator[None]:
    """Copy stdout and stderr to out.txt and err.txt. Errors are written to err.txt before they propagate."""
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(Tee(path / "out.txt"))
        err = stack.enter_context(Tee(path / "err.txt", stream=sys.stderr))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        try:
            yield
        except DomainBedError as error:
            err.file.write(f"{error}\n")
            raise
        except Exception:
            err.file.write(traceback.format_exc())
            raise


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn errors of the machine, such as a full disk or too little memory, into a RunError of one line."""
    try:
        yield
    except BrokenPipeError as error:
        raise RunError(
            "whatever read this run's output, such as head, has closed the pipe; run the same command again "
            "with its output in a file; earlier records are kept"
        ) from error
    except OSError as error:
        where = error.filename or "a file of the run"
        raise RunError(f"{where}: {error.strerror or error}; earlier records are kept") from error
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            remedy = "reduce batch_size, choose a smaller featurizer, or run fewer processes at a time"
            raise out_of_memory(error, "", remedy) from error
        reason = " ".join(str(error).split())
        is_compiler = type(error).__module__.startswith(_COMPILER_MODULES)
        if is_compiler or any(message in reason for message in _COMPILER_MESSAGES):
            raise RunError(f"torch.compile failed ({reason[:200]}); leave out --compile") from error
        raise
    except ValueError as error:
        if _SINGLE_VALUE in str(error):
            raise UsageError(
                "a batch norm got a minibatch with a single value in each channel, and cannot normalise it; "
                "use a batch_size of at least 2, larger images, or freeze_bn true"
            ) from error
        raise


def _print_settings(config: TrainConfig) -> None:
    """Print versions, settings and hyper-parameters, in upstream's layout."""
    import torch

    versions = {
        "Python": sys.version.split(" ")[0],
        "PyTorch": torch.__version__,
        "Torchvision": version("torchvision"),  # many runs do not need to import it
        "CUDA": torch.version.cuda,
        "CUDNN": torch.backends.cudnn.version(),
        "NumPy": version("numpy"),
        "PIL": version("pillow"),
    }
    sections = {"Environment": versions, "Args": config.recorded(), "HParams": resolved_hparams(config)}
    for title, values in sections.items():
        print(f"{title}:")
        for name, value in values.items() if title == "Environment" else sorted(values.items()):
            value = value if title != "HParams" else json.loads(json.dumps(value))
            print(f"\t{visible(f'{name}: {value}')}")
