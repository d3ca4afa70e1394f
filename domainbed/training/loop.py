"""The training loop of one run, which can be left between any two updates and gone on with."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from domainbed.algorithms.base import DeviceScalar, Minibatch
from domainbed.console import print_row
from domainbed.errors import RunError
from domainbed.hparams import option
from domainbed.networks.base import provenance_of
from domainbed.records.results_file import RESULTS_FILE, append_record, drop_records_after
from domainbed.seeds import Purpose, counter_seed, seed_all
from domainbed.training import checkpoint, split_file, tensorboard_events
from domainbed.training.config import TrainConfig
from domainbed.training.evaluation import (
    EVALUATION,
    Evaluation,
    PartBatches,
    parts_to_evaluate,
    without_augmentation,
)
from domainbed.training.model_file import save_model
from domainbed.training.prefetcher import Prefetcher, Source
from domainbed.training.run import Run
from domainbed.training.run_dir import RunDir
from domainbed.training.stop_requests import Interrupted, Preempted, StopRequests

_log = logging.getLogger(__name__)


def train(run: Run, directory: RunDir, make: Callable[[Run, RunDir], Loop] | None = None) -> None:
    """Train, writing a record at each checkpoint of upstream's, and finish the directory.

    Goes on from the directory's checkpoint if it has one; the records are those of an undisturbed run then,
    but for times and memory.

    Args:
        run: what to train.
        directory: where; this process has the claim on it.
        make: makes the loop, if it is not to be a plain one.

    Raises:
        RunError: a loss is not finite, or a record can't be written; what was recorded until then stays.
        Preempted: the process was told to leave; a checkpoint is written.
    """
    loop = (make or Loop)(run, directory)
    if directory.checkpoint is not None:
        loop.go_on_from(directory.checkpoint)
    if run.config.write_splits is not None:
        path = run.config.fill_placeholders(run.config.write_splits)
        split_file.write(Path(path), run.dataset, run.splits)
    about = {name: loop.constant[name] for name in ("sizes", "hparams", "data", "weights")}
    directory.write_summary({"counts": run.dataset.summary["counts"], **about})
    with StopRequests() as requests:
        loop.carry_out(requests)
    if not run.config.skip_model_save:
        with run.averaging.handed_out():
            loop.save_model("model.pkl")
    directory.finish()
    checkpoint.remove(directory.path)


class Loop:
    """A run's state between updates.

    Attributes:
        updates: number of updates done.
        constant: keys of a record that are the same at every checkpoint, and are not printed.
        HIDDEN: whether the progress bar is; None where stderr is no terminal.
    """

    HIDDEN: ClassVar[bool | None] = None

    def __init__(self, run: Run, directory: RunDir) -> None:
        self.run = run
        self.directory = directory
        self.updates = 0
        self.constant = _constant_keys(run)
        self._draws: tuple[int, ...] = (run.config.seed, Purpose.UPDATE)
        parts = parts_to_evaluate(run.splits, run.config.test_envs, run.config.evaluate)
        augmented = option(run.hparams, "augment_evaluation")
        parts = parts if augmented else {name: without_augmentation(part) for name, part in parts.items()}
        sources: dict[str, Source] = {"labeled": run.minibatches, EVALUATION: PartBatches(parts)}
        if run.unlabeled is not None:
            sources["unlabeled"] = run.unlabeled
        self._reader = Prefetcher(sources, run.num_workers, run.device.type == "cuda")
        self._evaluation = Evaluation(run.algorithm, parts, run.device, self._reader, run.config.seed)
        self._logged: dict[str, list[float | DeviceScalar]] = defaultdict(list)
        # Of the updates since the last record: seconds before this process, and when it began with them.
        self._seconds, self._began = 0.0, time.perf_counter()
        self._recorded = -1  # step of the last record
        self._pending: dict[str, Any] | None = None  # the next record, without its accuracies yet
        self._printed: list[str] = []

    def carry_out(self, requests: StopRequests) -> None:
        """Do all updates that are left, with records and checkpoints.

        Raises: Preempted or Interrupted, after a checkpoint, if `requests` has such a request.
        """
        run = self.run
        steps = range(self.updates, run.n_steps)
        loader = self._reader.read("labeled", steps)
        unlabeled = None if run.unlabeled is None else self._reader.read("unlabeled", steps)
        run.algorithm.train()
        bar = tqdm(
            *(None, run.config.algorithm, run.n_steps),
            initial=self.updates,
            unit="step",
            leave=False,
            disable=self.HIDDEN,
        )
        first, saved = self.updates, time.monotonic()
        self._began = time.perf_counter()
        try:
            with bar:
                while True:
                    if self._record_is_due():
                        self._record(requests)
                    if self.updates == run.n_steps:
                        return
                    if time.monotonic() - saved >= 60 * run.config.checkpoint_every:
                        self.save()
                        saved = time.monotonic()
                    self._check(requests)
                    inputs = None if unlabeled is None else [x for x, _ in _to(next(unlabeled), run.device)]
                    self._update(_to(next(loader), run.device), inputs)
                    bar.update()
                    self.directory.set_progress(self.updates, run.n_steps, first)
        except (Preempted, Interrupted):
            self.save()
            raise
        finally:
            self._reader.close()

    def _check(self, requests: StopRequests) -> None:
        """Raise Preempted or Interrupted if the run is to be left."""
        requests.check()

    def _update(self, minibatches: list[Minibatch], inputs: list[Tensor] | None) -> None:
        # Draws inside update depend on the step alone, so that a run can go on in the middle.
        seed_all(counter_seed(*self._draws, self.updates))
        for name, value in self.run.algorithm.update(minibatches, inputs).items():
            self._logged[name].append(value)
        self.run.averaging.add()
        self.updates += 1

    def _record_is_due(self) -> bool:
        step = self.updates - 1
        at_a_record = step % self.run.checkpoint_freq == 0 or step == self.run.n_steps - 1
        return step > self._recorded and at_a_record

    def _record(self, requests: StopRequests) -> None:
        """Append the record that is due after the last update."""
        run = self.run
        record = self._begin_record(requests) if self._pending is None else self._pending
        self._pending = record
        with run.averaging.handed_out():
            step = record["step"]
            record = record | self._evaluation.accuracies(step, requests.check)
            self._printed = _print_record(record, self._printed)
            self.directory.check_claim()
            append_record(self.directory.path / RESULTS_FILE, record | self.constant)
            if run.config.tensorboard:
                tensorboard_events.update(self.directory.path)
            _check_finite(record, run.config)
            if run.config.save_model_every_checkpoint and not run.config.skip_model_save:
                self.save_model(f"model_step{step}.pkl")
        self._pending = None
        self._recorded = step
        self._began = time.perf_counter()

    def _begin_record(self, requests: StopRequests) -> dict[str, Any]:
        """A record without its accuracies."""
        run, step = self.run, self.updates - 1
        # Reading the values waits for the device, so the time after it is that of the updates.
        values = {name: [float(value) for value in log] for name, log in self._logged.items()}
        record: dict[str, Any] = {name: float(np.mean(log)) for name, log in values.items()}
        n_updates = max(map(len, values.values()), default=1)
        record["step_time"] = (self._seconds + time.perf_counter() - self._began) / n_updates
        record |= {"step": step, "epoch": step / _steps_per_epoch(run), "mem_gb": _peak_memory(run.device)}
        record |= run.averaging.checkpoint(step, lambda step: self._validation_loss(step, requests))
        self._logged.clear()
        self._seconds = 0.0
        return record

    def _validation_loss(self, step: int, requests: StopRequests) -> float:
        """Mean loss on the sources' validation parts."""
        names = [f"env{index}_out" for index in self.run.sources]
        validation = [name for name in names if name in self._evaluation.parts]
        return self._evaluation.mean_loss(validation, step, requests.check)

    def save(self) -> None:
        """Write a checkpoint. If there is no room for it, the one before stays, and training goes on."""
        self.directory.check_claim()
        began = time.perf_counter()
        content = {
            "updates": self.updates,
            "logged": {name: [float(value) for value in log] for name, log in self._logged.items()},
            "seconds": self._seconds + began - self._began,
            "recorded": self._recorded,
            "pending": self._pending,
            "algorithm": self.run.algorithm.training_state(),
            "averaging": self.run.averaging.state_dict(),
            "generators": checkpoint.generator_states(),
        }
        try:
            checkpoint.save(self.directory.path, content)
        except OSError as error:
            _log.warning("no checkpoint at step %d: %s", self.updates, error.strerror)
        # The time of the updates does not count this.
        self._began += time.perf_counter() - began

    def go_on_from(self, content: checkpoint.Checkpoint) -> None:
        """Be where the loop was that wrote a checkpoint; records past it are dropped."""
        self.updates = content["updates"]
        self._recorded = content["recorded"]
        self._pending = content["pending"]
        self._logged.update(content["logged"])
        self._seconds = content["seconds"]
        self.run.algorithm.load_training_state(content["algorithm"])
        self.run.averaging.load_state_dict(content["averaging"])
        checkpoint.set_generator_states(content["generators"])
        drop_records_after(self.directory.path / RESULTS_FILE, self._recorded)

    def save_model(self, name: str) -> None:
        """Write the model into the run's directory."""
        run = self.run
        self.directory.check_claim()
        save_model(
            self.directory.path / name, run.algorithm, run.dataset, len(run.sources), run.config.recorded()
        )


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
    data = {name: run.dataset.summary[name] for name in ("checksum", "version")}
    keys: dict[str, Any] = {"hparams": run.hparams, "args": run.config.recorded(), "sizes": sizes}
    keys |= {"data": data, "weights": dict(provenance_of(run.algorithm))}
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
