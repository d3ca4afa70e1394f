"""The command `train`: its flags, and what it does in this process."""

from __future__ import annotations

import argparse
import ctypes
import sys
from collections.abc import Sequence

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of mallopt's parameters in glibc's <malloc.h>


def keep_freed_memory() -> None:
    """Make this process reuse the memory that it frees instead of returning it to the system.

    By default the C library returns large blocks at once. Getting new ones, zeroed page by page, can take
    longer than the computation that uses them. Only glibc has this setting; elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 2**30)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def build_parser() -> argparse.ArgumentParser:
    """The flags; upstream's sixteen first."""
    parser = argparse.ArgumentParser(description="Train one model and append its records to results.jsonl.")
    add = parser.add_argument
    add("--data_dir", type=str, help="root folder of the datasets; some need none")
    add(
        "--dataset",
        type=str,
        default="RotatedMNIST",
        help="name of a dataset, or path of root/environment/class/image",
    )
    add(
        "--algorithm",
        type=str,
        default="ERM",
        help="name of an algorithm (domainbed.scripts.list shows them)",
    )
    add(
        "--task", type=str, default="domain_generalization", help="domain_generalization or domain_adaptation"
    )
    add("--hparams", type=str, help="JSON object that overrides hyper-parameters, e.g. '{\"lr\": 0.001}'")
    add("--hparams_seed", type=int, default=0, help="0: default hyper-parameters; otherwise random ones")
    add("--trial_seed", type=int, default=0, help="seed of the splits and of random hyper-parameters")
    add("--seed", type=int, default=0, help="seed of everything else")
    add("--steps", type=int, help="number of updates; default: the dataset's")
    add("--checkpoint_freq", type=int, help="evaluate every N steps; default: the dataset's")
    # What upstream's users may have shortened it to, which --checkpoint_every would make ambiguous.
    add(*_shortened("--checkpoint_freq"), type=int, dest="checkpoint_freq", help=argparse.SUPPRESS)
    # --te is what --tensorboard would make ambiguous.
    add(
        *("--test_envs", "--te"),
        type=int,
        nargs="+",
        default=[0],
        help="indices of the target environments",
    )
    add("--output_dir", type=str, default="train_output", help="made if missing")
    add("--holdout_fraction", type=float, default=0.2, help="share of each environment for validation")
    add("--uda_holdout_fraction", type=float, default=0, help="share of a target's images given unlabeled")
    add("--skip_model_save", action="store_true", help="write no model.pkl")
    add("--save_model_every_checkpoint", action="store_true", help="also write model_step{N}.pkl")
    add(
        "--splits",
        type=str,
        default="holdout",
        help="holdout (upstream's in/out), train/validation/test as 70/10/20, or a file of --write_splits",
    )
    add("--write_splits", type=str, help="write the splits into this file (.json), for --splits to take")
    add(
        "--evaluate",
        type=str,
        default="selection",
        help="selection: the parts that selection methods read; all: the sources' other parts too (upstream)",
    )
    add(
        "--sampling",
        type=str,
        default="replacement",
        help="replacement (upstream), or epochs: without replacement",
    )
    add(
        "--grouping",
        type=str,
        default="domain",
        help="what an update sees as environments: domain, or a control: single_domain, pooled",
    )
    add(
        "--precision",
        type=str,
        default="fp32",
        help="fp32, tf32 (its matrix products, on a GPU), or bf16 (autocast of the featurizer)",
    )
    add("--channels_last", action="store_true", help="convolutions on images with channels innermost")
    add("--compile", action="store_true", help="torch.compile of the featurizer; takes a minute at first")
    add("--check_images", action="store_true", help="read every image first, and look for copies")
    add("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    add("--num_workers", type=int, help="loader processes, for images that are not cached; changes no result")
    add(
        "--cache_dir",
        type=str,
        help="folder of decoded images, shared by runs, or none; default: ~/.cache/domainbed",
    )
    add("--deterministic", action="store_true", help="only operations that repeat to the bit on a GPU")
    add(
        "--checkpoint_every",
        type=float,
        default=5.0,
        help="minutes between checkpoints; 0: after each update",
    )
    add("--tensorboard", action="store_true", help="write the records as TensorBoard's events too")
    add("--restart", action="store_true", help="begin anew where a run is; its files are moved to attempt-N")
    return parser


def _shortened(flag: str) -> list[str]:
    """`flag` cut off anywhere before its last word."""
    return [flag[:end] for end in range(len("--c"), flag.index("_") + 2)]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags `argv` (by default those of this process) and train; returns the exit status."""
    flags = vars(build_parser().parse_args(argv))
    from domainbed.training.api import one_of_several, train
    from domainbed.training.config import TrainConfig

    train(TrainConfig(**flags))
    if one_of_several():
        from domainbed.training.torchrun import leave_group_at_once

        leave_group_at_once()
    return 0
