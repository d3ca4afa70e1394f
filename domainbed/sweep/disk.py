"""Room on the disk: what a sweep will need, said before it starts, and what it has taken."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from domainbed.errors import UsageError
from domainbed.sweep.job import Job
from domainbed.training.config import TrainConfig

_RECORDS = 200_000
"""Bytes of records and logs of a run, roughly."""
_STATES = 3
"""Weights of a checkpoint with those of Adam's two moments, in models."""
_CHECKPOINTS = 2


def check_room(output_dir: Path, jobs: Sequence[Job], at_a_time: int) -> None:
    """Warn on stderr if a sweep may fill the disk.

    The estimate counts the featurizer alone: one model for each run if models are saved,
    two checkpoints for each run at work, and some records.

    Args:
        output_dir: the sweep's, which need not exist.
        jobs: what is to be launched.
        at_a_time: how many are at work at once.

    Raises: UsageError if there is not even half of the room.
    """
    sizes = {kind: _model_bytes(job) for kind, job in {_kind(job): job for job in jobs}.items()}
    models = sum(sizes[_kind(job)] for job in jobs if not job.train_args.get("skip_model_save"))
    checkpoints = min(at_a_time, len(jobs)) * _CHECKPOINTS * _STATES * max(sizes.values(), default=0)
    needed = models + checkpoints + _RECORDS * len(jobs)
    disk = shutil.disk_usage(_existing(output_dir))
    if not disk.total:  # a file system that does not say
        return
    say = f"{len(jobs)} runs need about {in_words(needed)} in {output_dir}"
    say += f", where {in_words(disk.free)} are free"
    if needed > 2 * disk.free:
        raise UsageError(f"{say}; make room, name another --output_dir, or give --skip_model_save")
    if needed > disk.free:
        print(f"warning: {say}.", file=sys.stderr)


def bytes_in(directories: Iterable[Path]) -> int:
    """Bytes of all files in and below these directories; those that are not there count nothing."""
    return sum(_bytes_in(directory) for directory in directories)


def in_words(size: float) -> str:
    """A number of bytes, as 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _bytes_in(directory: Path) -> int:
    total = 0
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    total += _bytes_in(Path(entry.path))
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:  # another process may tidy up meanwhile
        pass
    return total


def _kind(job: Job) -> tuple[object, ...]:
    return job.train_args["dataset"], job.train_args.get("hparams")


def _model_bytes(job: Job) -> int:
    """Bytes of the featurizer's weights, at 4 a parameter."""
    featurizer = TrainConfig(**job.train_args).featurizer(pretrained=False, weights_file="")
    return sum(4 * int(tensor.numel()) for tensor in featurizer.state_dict().values())


def _existing(path: Path) -> Path:
    """The nearest directory at or above `path` that is there."""
    return next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.is_dir())
