"""One run, from its settings to its last record."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from domainbed.algorithms.base import Algorithm, DeviceScalar, Minibatch
from domainbed.datasets.base import MultipleDomainDataset, labels_of
from domainbed.errors import RunError, UsageError
from domainbed.lib.printing import print_row
from domainbed.lib.seeds import counter_seed, seed_all
from domainbed.lib.splitting import balanced_class_weights
from domainbed.results.records import append_record
from domainbed.training.config import TrainConfig
from domainbed.training.data import EnvironmentSampler, Minibatches, in_memory
from domainbed.training.evaluation import accuracies, parts_to_evaluate, plain
from domainbed.training.model_file import save_model
from domainbed.training.run_dir import RunDir
from domainbed.training.splits import make_splits

if TYPE_CHECKING:
    from domainbed.training.splits import Parts

_STEP = 4  # purpose of the seeds of updates; 0 to 3 belong to data and evaluation


@dataclass
class Run:
    """Everything that a run consists of, built from its settings; `train` does the work.

    Building is the part that a user's mistake can fail, training the part that takes time.
    """

    config: TrainConfig
    hparams: dict[str, Any]
    device: torch.device
    dataset: MultipleDomainDataset
    splits: list[Parts]
    sources: list[int]
    minibatches: Minibatches
    unlabeled: Minibatches | None
    algorithm: Algorithm
    num_workers: int
    n_steps: int
    checkpoint_freq: int


def build(config: TrainConfig) -> Run:
    """Data, splits, minibatches and algorithm of a run.

    Raises: UsageError for settings or data that can't be used.
    """
    hparams = config.resolved_hparams()
    device = choose_device(config.device)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    torch.use_deterministic_algorithms(config.deterministic)
    # Debug and MNIST-derived datasets draw from the global generator.
    seed_all(config.seed)
    dataset = config.dataset_class()(config.data_dir, config.test_envs, hparams)
    splits = make_splits(dataset, config)
    sources = [index for index in range(len(dataset)) if index not in config.test_envs]
    n_steps = config.steps or dataset.N_STEPS
    minibatches = _minibatches(config, hparams, splits, sources, "in", n_steps)
    unlabeled = None
    if config.task == "domain_adaptation":
        unlabeled = _minibatches(config, hparams, splits, list(config.test_envs), "uda", n_steps)
    # The same initial weights for every algorithm and dataset with this seed.
    seed_all(config.seed)
    algorithm = config.algorithm_class()(dataset.input_shape, dataset.num_classes, len(sources), hparams)
    return Run(
        *(config, hparams, device, dataset, splits, sources, minibatches, unlabeled),
        algorithm.to(device),
        choose_num_workers(config.num_workers, dataset, splits),
        n_steps,
        config.checkpoint_freq or dataset.CHECKPOINT_FREQ,
    )


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name} can't be used here: {str(error).splitlines()[0]}") from None
    return device


def choose_num_workers(asked: int | None, dataset: MultipleDomainDataset, splits: list[Parts]) -> int:
    """Loader processes: none for data in memory, else as many as asked for, else one a core."""
    if all(in_memory(part) for parts in splits for part in parts.values()):
        return 0
    return min(dataset.N_WORKERS, torch.get_num_threads()) if asked is None else asked


def _minibatches(
    config: TrainConfig,
    hparams: dict[str, Any],
    splits: list[Parts],
    environments: list[int],
    kind: str,
    n_steps: int,
) -> Minibatches:
    parts, samplers = [], []
    for index in environments:
        part = splits[index].get(kind)
        if part is None or not len(part):
            flag = "raise --uda_holdout_fraction" if kind == "uda" else "lower --holdout_fraction"
            raise UsageError(
                f"environment {index} has no images in its {kind!r} part; {flag} or give it more images"
            )
        weights = balanced_class_weights(labels_of(part)) if hparams["class_balanced"] else None
        samplers.append(
            EnvironmentSampler(
                len(part), hparams["batch_size"], (config.seed, index), config.sampling, weights
            )
        )
        parts.append(part)
    return Minibatches(parts, samplers, n_steps)


def describe(run: Run) -> Iterator[str]:
    """Lines on the data: counts of each environment, and which minibatches are smaller than asked for."""
    yield "Data:"
    for index, (name, counts) in enumerate(run.dataset.counts().items()):
        role = "target" if index in run.config.test_envs else "source"
        parts = ", ".join(f"{kind} {len(part)}" for kind, part in run.splits[index].items())
        classes = ", ".join(f"{label} {count}" for label, count in counts.items())
        if len(counts) > 10:
            classes = f"{len(counts)} classes, {min(counts.values())} to {max(counts.values())} images each"
        yield f"\tenvironment {index} ({name}, {role}): {sum(counts.values())} images ({classes}); {parts}"
    for index, sampler in zip(run.sources, run.minibatches.samplers, strict=True):
        if sampler.batch_size < run.hparams["batch_size"]:
            yield (
                f"\tenvironment {index} has {sampler.size} images to train on, fewer than "
                f"batch_size {run.hparams['batch_size']}: its minibatches have {sampler.batch_size}"
            )


def train(run: Run, directory: RunDir) -> None:
    """Train, writing a record at each checkpoint, and finish the directory.

    Raises: RunError if a loss is not finite; what was recorded until then stays.
    """
    config, algorithm = run.config, run.algorithm
    constant = _constant_keys(run)
    directory.write_summary(
        {"counts": run.dataset.counts(), "sizes": constant["sizes"], "hparams": run.hparams}
    )
    parts = parts_to_evaluate(run.splits, config.test_envs, config.evaluate)
    if not run.hparams.get("augment_evaluation", True):
        parts = {name: plain(part) for name, part in parts.items()}
    loader = run.minibatches.loader(run.num_workers, run.device.type == "cuda")
    unlabeled = None if run.unlabeled is None else run.unlabeled.loader(run.num_workers, False)

    logged: dict[str, list[float | DeviceScalar]] = defaultdict(list)
    printed: list[str] = []
    steps_done, began = 0, time.perf_counter()
    algorithm.train()
    for step in tqdm(range(run.n_steps), desc=config.algorithm, unit="step", leave=False, disable=None):
        minibatches = _to(next(loader), run.device)
        inputs = None if unlabeled is None else [x for x, _ in _to(next(unlabeled), run.device)]
        # Draws inside update depend on the step alone, so that a run can go on in the middle.
        seed_all(counter_seed(config.seed, _STEP, step))
        for name, value in algorithm.update(minibatches, inputs).items():
            logged[name].append(value)
        steps_done += 1
        if step % run.checkpoint_freq and step != run.n_steps - 1:
            continue

        # Reading the values waits for the device, so the time after it is that of the steps.
        record: dict[str, Any] = {
            name: float(np.mean([float(v) for v in log])) for name, log in logged.items()
        }
        record["step_time"] = (time.perf_counter() - began) / steps_done
        record |= {"step": step, "epoch": step / _steps_per_epoch(run), "mem_gb": _peak_memory(run.device)}
        record |= accuracies(algorithm, parts, run.device, run.num_workers, (config.seed, step))
        printed = _print_record(record, printed)
        append_record(directory.path / "results.jsonl", record | constant)
        _check_finite(record, config)
        if config.save_model_every_checkpoint and not config.skip_model_save:
            _save(run, directory.path / f"model_step{step}.pkl")
        logged.clear()
        steps_done, began = 0, time.perf_counter()

    if not config.skip_model_save:
        _save(run, directory.path / "model.pkl")
    directory.finish()


def _steps_per_epoch(run: Run) -> float:
    """As upstream counts: by the smallest environment, targets among them."""
    return float(min(len(parts["in"]) for parts in run.splits) / run.hparams["batch_size"])


def _peak_memory(device: torch.device) -> float:
    """GiB of CUDA memory that this process has held at most; 0 elsewhere."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0


def _to(minibatches: list[Minibatch], device: torch.device) -> list[Minibatch]:
    if device.type == "cpu":
        return minibatches
    return [(x.to(device, non_blocking=True), y.to(device, non_blocking=True)) for x, y in minibatches]


def _constant_keys(run: Run) -> dict[str, Any]:
    """Keys of a record that are the same at every checkpoint, and are not printed."""
    sizes = {
        f"env{i}_{kind}": len(part) for i, parts in enumerate(run.splits) for kind, part in parts.items()
    }
    keys: dict[str, Any] = {"hparams": run.hparams, "args": run.config.recorded(), "sizes": sizes}
    # `env{j}_uda_acc` counts over the environments that have such a part: say which they are.
    udas = [index for index, parts in enumerate(run.splits) if "uda" in parts]
    return keys | ({"uda_envs": udas} if udas else {})


def _print_record(record: dict[str, Any], printed: list[str]) -> list[str]:
    """Print a row of values, under a row of names if those changed; returns the names."""
    names = sorted(record)
    if names != printed:
        print_row(names, colwidth=12)
    print_row([record[name] for name in names], colwidth=12)
    return names


def _check_finite(record: dict[str, Any], config: TrainConfig) -> None:
    for name, value in record.items():
        if "loss" in name and not np.isfinite(value):
            raise RunError(
                f"{name} is {value} at step {record['step']} ({config.algorithm} on {config.dataset}): "
                "training diverged; try a smaller lr"
            )


def _save(run: Run, path: Path) -> None:
    save_model(path, run.algorithm, run.dataset, len(run.sources), run.config.recorded())
