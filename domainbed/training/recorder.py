"""The records of a run: one line of results.jsonl at each checkpoint."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from domainbed.accelerators import peak_bytes
from domainbed.algorithms.base import DeviceScalar
from domainbed.console import print_row
from domainbed.datasets.image_folder import FolderDataset
from domainbed.datasets.list_file import ListFileDataset
from domainbed.errors import RunError
from domainbed.networks.base import provenance_of
from domainbed.records.results_file import RESULTS_FILE, append_record, drop_records_after, read_records
from domainbed.training.derived import tracker_names
from domainbed.training.evaluation import Evaluator
from domainbed.training.initialization import INITIAL_WEIGHTS
from domainbed.training.kept_predictions import KeptPredictions
from domainbed.training.run import Run
from domainbed.training.run_description import replacements
from domainbed.training.run_dir import RunDir
from domainbed.training.scores import Scores
from domainbed.training.trackers.active import Trackers
from domainbed.training.trackers.tracker import TrackedRun


class Stopwatch:
    """Adds up the time during which it runs.

    Attributes:
        seconds: total time of all finished intervals.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._started_at: float | None = None

    def start(self) -> None:
        """Start an interval, or restart the current one."""
        self._started_at = time.perf_counter()

    def stop(self) -> None:
        """End the current interval, if there is one."""
        if self._started_at is not None:
            self.seconds += time.perf_counter() - self._started_at
        self._started_at = None


class Recorder:
    """Collects what updates log, and appends a record to results.jsonl at each checkpoint.

    A record is written in two steps, `begin` and `finish`. If the run is stopped during the evaluation in
    between, the begun record is part of its state.

    Args:
        run: the run.
        directory: its directory.
        evaluator: evaluates the run's algorithm.

    Attributes:
        constant: entries that are the same in every record. They are not printed.
        last_step: step of the last record; -1 if there is none.
        predictions: the predictions that the run saves.
        stopwatch: time of the updates since the last record.
        trackers: where records go beside results.jsonl.
    """

    def __init__(self, run: Run, directory: RunDir, evaluator: Evaluator) -> None:
        self.constant = _constant_entries(run)
        self.last_step = -1
        self.stopwatch = Stopwatch()
        self._run = run
        self._directory = directory
        tracked = TrackedRun(directory.path, self.constant["args"], run.hparams)
        self.trackers = Trackers(tracker_names(run.config), tracked)
        self.predictions = KeptPredictions(run, directory, evaluator.parts)
        self._evaluator = evaluator
        self._logged: dict[str, list[float | DeviceScalar]] = defaultdict(list)
        self._begun: dict[str, Any] | None = None
        self._printed_names: list[str] = []

    def log(self, values: Mapping[str, float | DeviceScalar]) -> None:
        """Add the values returned by one update. The next record has the mean of each."""
        for name, value in values.items():
            self._logged[name].append(value)

    def is_due(self, step: int) -> bool:
        """Whether a record has to be written after update `step`, counted from 0."""
        is_checkpoint = step % self._run.checkpoint_freq == 0 or step == self._run.n_steps - 1
        return step > self.last_step and is_checkpoint

    def begin(self, step: int, check: Callable[[], None]) -> None:
        """Begin the record of `step`: all entries except accuracies. Does nothing if it was begun before.

        Args:
            step: the last update, counted from 0.
            check: called before each batch of an evaluation. If it raises, nothing has changed.
        """
        if self._begun is not None:
            return
        # Converting values to numbers waits for the device, so the time read afterwards covers all updates.
        values = {name: [float(value) for value in logged] for name, logged in self._logged.items()}
        self.stopwatch.stop()
        n_updates = max(map(len, values.values()), default=1)
        record: dict[str, Any] = {name: float(np.mean(logged)) for name, logged in values.items()}
        record["step_time"] = self.stopwatch.seconds / n_updates
        record["step"] = step
        record["epoch"] = step / _steps_per_epoch(self._run)
        record["mem_gb"] = _peak_memory(self._run.device)
        record |= self._run.averaging.at_checkpoint(step, lambda step: self._validation_loss(step, check))
        self._begun = record
        self._logged.clear()
        self.stopwatch.seconds = 0.0

    def finish(self, check: Callable[[], None]) -> None:
        """Add accuracies to the begun record, print it, and append it with the metrics to results.jsonl.

        Args:
            check: called before each batch of the evaluation. If it raises, the record stays begun.

        Raises: RunError if a loss is not finite. The record has been appended.
        """
        assert self._begun is not None
        step = self._begun["step"]
        scores = Scores()
        predicted = self.predictions.consumers(step)
        self._evaluator.evaluate([scores, *predicted], step, check)
        record = self._begun | scores.accuracies()
        complete = record | scores.metrics() | self.constant
        self._print(record)
        self._directory.check_claim()
        append_record(self._directory.path / RESULTS_FILE, complete)
        self.predictions.add(complete, predicted)
        self.trackers.update()
        self._check_finite(record)
        self._begun = None
        self.last_step = step

    def skip(self, step: int) -> None:
        """Discard the logged values; another process writes the record of `step`."""
        self._logged.clear()
        self.last_step = step

    def state_dict(self) -> dict[str, Any]:
        """State of the recorder, in plain containers."""
        return {
            "logged": {name: [float(value) for value in logged] for name, logged in self._logged.items()},
            "seconds": self.stopwatch.seconds,
            "recorded": self.last_step,
            "pending": self._begun,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore from `state_dict`, which may have other entries too."""
        self._logged.update(state_dict["logged"])
        self.stopwatch.seconds = state_dict["seconds"]
        self.last_step = state_dict["recorded"]
        self._begun = state_dict["pending"]

    def drop_later_records(self) -> None:
        """Remove the records after `last_step` from results.jsonl, and their predictions."""
        path = self._directory.path / RESULTS_FILE
        drop_records_after(path, self.last_step)
        if self._run.config.save_predictions != "none":
            self.predictions.restore(read_records(path).records if path.exists() else [])

    def _validation_loss(self, step: int, check: Callable[[], None]) -> float:
        """Mean loss on the validation parts of the source environments."""
        names = [f"env{index}_out" for index in self._run.sources]
        validation = [name for name in names if name in self._evaluator.parts]
        return self._evaluator.mean_loss(validation, step, check)

    def _print(self, record: dict[str, Any]) -> None:
        """Print a row of values to five digits, below a row of their names if these have changed.

        The row is upstream's: 12 characters a value. All digits are in results.jsonl.
        """
        names = sorted(record)
        if names != self._printed_names:
            print_row(names, colwidth=12)
        values = (record[name] for name in names)
        print_row([f"{each:.5g}" if isinstance(each, float) else each for each in values], colwidth=12)
        self._printed_names = names

    def _check_finite(self, record: dict[str, Any]) -> None:
        config = self._run.config
        for name, value in record.items():
            if "loss" in name and not np.isfinite(value):
                raise RunError(
                    f"{name} is {value} at step {record['step']} ({config.algorithm} on {config.dataset}): "
                    "training diverged; try a smaller lr"
                )


def _constant_entries(run: Run) -> dict[str, Any]:
    """Entries that are the same in every record of the run."""
    entries: dict[str, Any] = {
        "hparams": run.hparams,
        "args": run.config.recorded(),
        "sizes": {
            f"env{i}_{kind}": len(part) for i, parts in enumerate(run.splits) for kind, part in parts.items()
        },
        "data": {name: value for name, value in run.dataset.summary.items() if name != "counts"},
        "weights": dict(provenance_of(run.algorithm)),
        INITIAL_WEIGHTS: run.initial_weights,
        "environments": list(run.dataset.ENVIRONMENTS),
    }
    if isinstance(run.dataset, FolderDataset | ListFileDataset):
        entries["dataset_name"] = type(run.dataset).__name__
    # `env{j}_uda_acc` numbers only the environments that have a `uda` part; this entry says which they are.
    with_uda = [index for index, parts in enumerate(run.splits) if "uda" in parts]
    if with_uda:
        entries["uda_envs"] = with_uda
    replaced = replacements(run)
    if replaced:
        entries["replaced"] = replaced
    return entries


def _steps_per_epoch(run: Run) -> float:
    """Number of updates in an epoch of the smallest environment, targets included (as in upstream)."""
    return float(min(len(parts["in"]) for parts in run.splits) / run.hparams["batch_size"])


def _peak_memory(device: torch.device) -> float:
    """Peak memory of this process on an accelerator, in GiB; 0 on the CPU."""
    return peak_bytes(device) / 2**30
