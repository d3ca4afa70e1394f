"""A run as a function call: for the command line, for other programs, and for notebooks."""

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

    from domainbed.training.run import Run

    Work = Callable[[Run, RunDir], None]
    Settings = Mapping[str, Any]

_COMPILER = ("torch._dynamo", "torch._inductor")
_COMPILED = ("does not currently support double backward", "compiled with non-empty donated buffers")
"""What a compiled network says that has to be differentiated twice."""


def train(config: TrainConfig, work: Work | None = None, more_settings: Settings | None = None) -> None:
    """Carry out a run in `config.output_dir`; what is printed goes to out.txt and err.txt there too.

    A directory that holds this run, finished, is left as it is; where it is unfinished, it goes on from its
    checkpoint, or begins anew if there is none. Processes that torchrun started share the run.

    Args:
        config: the run.
        work: trains it in one process, if `loop.train` is not to.
        more_settings: what else its directory must belong to, for `work`.

    Raises:
        UsageError: settings, data or output directory can't be used.
        RunError: the run could not be finished; all that it recorded is kept.
        Preempted: the process was told to leave; the same call goes on.
    """
    if one_of_several():
        _train_together(config)
        return
    config.check()
    _train(config, work, more_settings)


def one_of_several() -> bool:
    """Whether torchrun started this process together with others, to share a run."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def _train_together(config: TrainConfig) -> None:
    """`train` as one of several processes."""
    from domainbed.training import distributed_run
    from domainbed.training.torchrun import TorchrunGroup

    with TorchrunGroup() as group:
        if group.rank == 0:
            config.check()
            distributed_run.check_shareable(config, group)
            _train(group.placed(config), partial(distributed_run.lead, group=group))
        else:
            with _one_line():
                distributed_run.follow(config, group)


def _train(config: TrainConfig, work: Work | None = None, more_settings: Settings | None = None) -> None:
    """Build the run and let `work` train it: `loop.train`, if nothing else."""
    settings = {**config.compared(), **(more_settings or {})}
    with RunDir(Path(config.output_dir), settings, config.restart) as directory:
        if directory.finished:
            print(f"{directory.path} holds this run, finished. Give --restart to do it again.")
            return
        with _one_line(), _copied_to(directory.path):
            from domainbed.training import loop
            from domainbed.training.run import build, describe

            if directory.checkpoint is None:
                _print_settings(config)
            run = build(config)
            if directory.checkpoint is None:
                for line in describe(run):
                    print(line)
            else:
                print(f"Goes on after {directory.checkpoint['updates']} of {run.n_steps} updates.")
            (work or loop.train)(run, directory)


def train_to_frame(settings: dict[str, Any]) -> pd.DataFrame:
    """`domainbed.train`: settings by name, no printing, the records as a frame."""
    from domainbed.records.results_file import read_records
    from domainbed.records.sweep_records import to_frame

    with contextlib.ExitStack() as stack:
        if "output_dir" not in settings:
            settings = settings | {"output_dir": stack.enter_context(tempfile.TemporaryDirectory())}
        config = from_settings(settings)
        with contextlib.redirect_stdout(io.StringIO()):
            train(config)
        return to_frame(read_records(Path(config.output_dir) / "results.jsonl").records)


@contextlib.contextmanager
def _copied_to(path: Path) -> Iterator[None]:
    """Copy stdout and stderr to out.txt and err.txt; an error is written there before it is raised."""
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
def _one_line() -> Iterator[None]:
    """A full disk, a lost directory or too little memory is the machine's trouble: no traceback."""
    import torch

    try:
        yield
    except OSError as error:
        where = error.filename or "a file of the run"
        raise RunError(f"{where}: {error.strerror or error}; what was recorded until then is kept") from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        reason = str(error).split(".", maxsplit=1)[0]
        raise RunError(f"out of memory ({reason}); lower batch_size, or run fewer at a time") from error
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        if "DataLoader worker" in reason:
            raise RunError(f"a loader process ended: {reason}; try fewer --num_workers") from error
        if type(error).__module__.startswith(_COMPILER) or any(words in reason for words in _COMPILED):
            raise RunError(f"torch.compile can't do this ({reason[:200]}); leave out --compile") from error
        raise


def _print_settings(config: TrainConfig) -> None:
    """What the run is made with, in upstream's layout."""
    import torch

    versions = {
        "Python": sys.version.split(" ")[0],
        "PyTorch": torch.__version__,
        "Torchvision": version("torchvision"),  # not imported where it is not needed
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
