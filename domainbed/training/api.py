"""Train a run by a function call: for the command line, other programs, and notebooks."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainbed.console import Tee
from domainbed.errors import DomainBedError, RunError
from domainbed.training.config import TrainConfig, from_settings
from domainbed.training.run_dir import RunDir

if TYPE_CHECKING:
    import pandas as pd

    from domainbed.training.loop import Loop
    from domainbed.training.run import Run

    MakeLoop = Callable[[Run, RunDir], Loop]

_COMPILER_MODULES = ("torch._dynamo", "torch._inductor")
_COMPILER_MESSAGES = ("does not currently support double backward", "compiled with non-empty donated buffers")
"""Messages of errors raised when a compiled network is differentiated twice."""


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
        UsageError: settings, data or output directory cannot be used.
        RunError: the run could not be finished. Its records are kept.
        Preempted: the run was asked to stop. The same call resumes it.
    """
    if launched_by_torchrun():
        _train_in_group(config)
        return
    config.check()
    _train(config, make_loop, extra_settings)


def launched_by_torchrun() -> bool:
    """Whether torchrun started this process together with others that share its run."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def _train_in_group(config: TrainConfig) -> None:
    """Train as one of several processes."""
    from domainbed.training import distributed_run
    from domainbed.training.torchrun import TorchrunGroup

    with TorchrunGroup() as group:
        if group.rank == 0:
            config.check()
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
    with RunDir(Path(config.output_dir), settings, config.restart) as directory:
        if directory.finished:
            print(f"{directory.path} already holds this run, finished. Use --restart to run it again.")
            return
        with _one_line_errors(), _output_copied_to(directory.path):
            from domainbed.training import loop
            from domainbed.training.run import build, describe

            if directory.checkpoint is None:
                _print_settings(config)
            run = build(config)
            if directory.checkpoint is None:
                for line in describe(run):
                    print(line)
            else:
                print(f"Resumes after {directory.checkpoint['updates']} of {run.n_steps} updates.")
            loop.train(run, directory, make_loop)


def train_to_frame(settings: Mapping[str, Any]) -> pd.DataFrame:
    """Train a run without printing, and return its records (this is `domainbed.train`).

    Args:
        settings: fields of `TrainConfig`. Without `output_dir`, nothing is left on disk.
    """
    from domainbed.records.results_file import RESULTS_FILE, read_records
    from domainbed.records.sweep_records import to_frame

    with contextlib.ExitStack() as stack:
        if "output_dir" not in settings:
            settings = {**settings, "output_dir": stack.enter_context(tempfile.TemporaryDirectory())}
        config = from_settings(dict(settings))
        with contextlib.redirect_stdout(io.StringIO()):
            train(config)
        return to_frame(read_records(Path(config.output_dir) / RESULTS_FILE).records)


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
    import torch

    try:
        yield
    except OSError as error:
        where = error.filename or "a file of the run"
        raise RunError(f"{where}: {error.strerror or error}; earlier records are kept") from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        reason = str(error).split(".", maxsplit=1)[0]
        raise RunError(
            f"out of memory ({reason}); reduce batch_size, or run fewer processes at a time"
        ) from error
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        if "DataLoader worker" in reason:
            raise RunError(f"a loader process died: {reason}; reduce --num_workers") from error
        is_compiler = type(error).__module__.startswith(_COMPILER_MODULES)
        if is_compiler or any(message in reason for message in _COMPILER_MESSAGES):
            raise RunError(f"torch.compile failed ({reason[:200]}); leave out --compile") from error
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
    sections = {"Environment": versions, "Args": config.recorded(), "HParams": config.resolved_hparams()}
    for title, values in sections.items():
        print(f"{title}:")
        for name, value in values.items() if title == "Environment" else sorted(values.items()):
            print(f"\t{name}: {value if title != 'HParams' else json.loads(json.dumps(value))}")
