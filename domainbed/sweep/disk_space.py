"""Disk space: what a sweep will need, and what its runs take up."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from domainbed.console import format_bytes
from domainbed.errors import UsageError
from domainbed.sweep.job import Job
from domainbed.training.config import TrainConfig
from domainbed.training.derived import make_featurizer

_RECORD_BYTES = 200_000
"""Approximate size of a run's records and logs."""
_MODELS_PER_CHECKPOINT = 3
"""A checkpoint holds the weights and Adam's two moments."""
_CHECKPOINTS_PER_RUN = 2


def check_disk_space(output_dir: Path, jobs: Sequence[Job], concurrency: int) -> None:
    """Warn on stderr if a sweep may fill the disk.

    The estimate counts the featurizer as the whole model: one saved model per run unless models are not
    saved, two checkpoints per running run, and records.

    Args:
        output_dir: the sweep directory, which need not exist.
        jobs: the jobs to launch.
        concurrency: number of runs at a time.

    Raises: UsageError if less than half of the required space is free.
    """
    free = free_bytes(output_dir)
    if free is None:
        return
    needed = needed_bytes(jobs, concurrency)
    message = f"{len(jobs)} runs need about {format_bytes(needed)} in {output_dir}"
    message += f", which has {format_bytes(free)} free"
    if needed > 2 * free:
        raise UsageError(f"{message}; free some space, choose another --output_dir, or use --skip_model_save")
    if needed > free:
        print(f"warning: {message}.", file=sys.stderr)


def needed_bytes(jobs: Sequence[Job], concurrency: int) -> int:
    """Approximate bytes that `jobs` will take up, so many of them at a time."""
    sizes = {kind: _model_bytes(job) for kind, job in {_model_of(job): job for job in jobs}.items()}
    models = sum(sizes[_model_of(job)] for job in jobs if not job.train_args.get("skip_model_save"))
    checkpoint = _MODELS_PER_CHECKPOINT * max(sizes.values(), default=0)
    checkpoints = min(concurrency, len(jobs)) * _CHECKPOINTS_PER_RUN * checkpoint
    return models + checkpoints + _RECORD_BYTES * len(jobs)


def free_bytes(output_dir: Path) -> int | None:
    """Bytes that are free where `output_dir` is or will be; None for a file system that reports no size."""
    disk = shutil.disk_usage(_existing(output_dir))
    return disk.free if disk.total else None


def bytes_in(directories: Iterable[Path]) -> int:
    """Total size in bytes of all files in and below `directories`. Missing directories count as empty."""
    return sum(_bytes_in(directory) for directory in directories)


def _bytes_in(directory: Path) -> int:
    total = 0
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    total += _bytes_in(Path(entry.path))
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:  # deleted by another process in the meantime
        pass
    return total


def _model_of(job: Job) -> tuple[object, ...]:
    """The arguments that the size of a job's model depends on."""
    return job.train_args["dataset"], job.train_args.get("hparams")


def _model_bytes(job: Job) -> int:
    """Size of the featurizer's weights, at 4 bytes per parameter."""
    featurizer = make_featurizer(TrainConfig(**job.train_args), pretrained=False, weights_file="")
    return sum(4 * int(tensor.numel()) for tensor in featurizer.state_dict().values())


def _existing(path: Path) -> Path:
    """The nearest existing directory at or above `path`."""
    return next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.is_dir())
