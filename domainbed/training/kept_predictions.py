"""The predictions that a run saves (`--save_predictions`), and what it keeps of them while it trains.

Predictions of an evaluation stay in memory until the next checkpoint, which writes those that are still
needed to files, one for each step. The end of the run makes one file of them (`domainbed.predictions.file`).
So a run that is killed and resumes from a checkpoint has every step that it needs, and ends with the same
file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from domainbed.datasets.base import labels_of
from domainbed.datasets.relative_paths import relative_paths
from domainbed.metrics import predicted_classes, two_columns
from domainbed.model_selection import METHODS, selected_step
from domainbed.predictions.content import Arrays
from domainbed.predictions.file import (
    FORMAT,
    MOST_CLASSES,
    TOP,
    About,
    packed_paths,
    saved_steps,
    smallest_dtype,
    step_file,
    write_arrays,
    write_predictions,
)
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.records.target_sets import TARGET_SETS, by_column
from domainbed.training.evaluation import PartOutputs
from domainbed.training.split_file import positions

if TYPE_CHECKING:
    from domainbed.datasets.base import MultipleDomainDataset
    from domainbed.datasets.splitting import SplitDataset
    from domainbed.training.run import Run
    from domainbed.training.run_dir import RunDir
    from domainbed.training.splits import Parts

_MOST_IN_MEMORY = 16
"""Number of steps in memory from which on those that are not needed are dropped, also between checkpoints."""

_log = logging.getLogger(__name__)


class Predicted:
    """Consumer of an evaluation that keeps predicted classes and log-probabilities, on the device."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[str, Tensor]] = {}

    def __call__(self, outputs: PartOutputs) -> None:
        log_probabilities = two_columns(outputs.logits.float()).log_softmax(1)
        kept = {"predicted": predicted_classes(outputs.logits)}
        if log_probabilities.size(1) > MOST_CLASSES:
            classes = torch.cat([log_probabilities.topk(TOP, dim=1).indices, outputs.labels[:, None]], dim=1)
            kept["classes"] = classes
            log_probabilities = log_probabilities.gather(1, classes)
        kept["log_probabilities"] = log_probabilities.half()
        self._parts[outputs.name] = kept

    def arrays(self, step: int, num_classes: int) -> Arrays:
        """The entries of the step in a file of predictions."""
        dtypes = dict.fromkeys(("predicted", "classes"), smallest_dtype(num_classes - 1))
        return {
            f"{step}/{part}/{name}": tensor.cpu().numpy().astype(dtypes.get(name, np.float16))
            for part, kept in self._parts.items()
            for name, tensor in kept.items()
        }


class KeptPredictions:
    """The predictions of a run, from its evaluations to its file.

    Args:
        run: the run. Its setting `save_predictions` says which steps are saved.
        directory: its directory.
        parts: the parts that are evaluated, by name.
    """

    def __init__(self, run: Run, directory: RunDir, parts: Mapping[str, SplitDataset]) -> None:
        self._run = run
        self._directory = directory.path
        self._parts = parts
        self._which = run.config.save_predictions
        self._records: list[Record] = []
        self._in_memory: dict[int, Arrays] = {}
        self._of_last_checkpoint: set[int] = set()
        self._broken_rules: set[str] = set()

    def consumers(self, step: int) -> list[Predicted]:
        """What has to receive the evaluation of `step`: at most one consumer."""
        wanted = self._which in ("all", "selected") or (
            self._which == "last" and step == self._run.n_steps - 1
        )
        return [Predicted()] if wanted else []

    def add(self, record: Record, consumers: Iterable[Predicted]) -> None:
        """Add the evaluation of a step.

        Args:
            record: its record.
            consumers: what `consumers` returned, after the evaluation.
        """
        if self._which == "none":
            return
        self._records.append(record)
        for predicted in consumers:
            self._in_memory[record["step"]] = predicted.arrays(record["step"], self._run.dataset.num_classes)
        if len(self._in_memory) >= _MOST_IN_MEMORY and self._which == "selected":
            self._drop_others(self._needed())

    def restore(self, records: Iterable[Record]) -> None:
        """Continue after the last of `records`, those that the checkpoint of a resumed run has."""
        self._records = list(records)
        known = {record["step"] for record in self._records}
        self._of_last_checkpoint = saved_steps(self._directory)
        for step in self._of_last_checkpoint - known:  # the run will do them again
            step_file(self._directory, step).unlink(missing_ok=True)

    def write_steps(self) -> None:
        """Write the steps in memory that are needed, for a checkpoint that is written next.

        Raises: OSError. The steps stay in memory.
        """
        self._drop_others(self._needed())
        for step, arrays in sorted(self._in_memory.items()):
            write_arrays(step_file(self._directory, step), arrays.items())
        self._in_memory.clear()

    def remove_unneeded(self) -> None:
        """Remove files of steps that neither the checkpoint just written nor the one before it needs."""
        needed = self._needed()
        for step in saved_steps(self._directory) - needed - self._of_last_checkpoint:
            step_file(self._directory, step).unlink(missing_ok=True)
        self._of_last_checkpoint = needed

    def finish(self) -> None:
        """Write the file of the run. Warns of steps that were not kept.

        Raises: OSError.
        """
        if self._which == "none":
            return
        selected = self._selected()
        needed = self._needed()
        kept = sorted(needed & {*self._in_memory, *saved_steps(self._directory)})
        lost = sorted(needed.difference(kept))
        if lost:
            _log.warning(
                "warning: predictions of steps %s are missing: the run began without --save_predictions %s, "
                "or a selection rule went back to a step that it had not selected before",
                ", ".join(map(str, lost)),
                self._which,
            )
        if not needed:
            _log.warning(
                "warning: no predictions are saved, because no selection rule selects a step of this run by "
                "itself; use --save_predictions last or all"
            )
        about = self._about(kept, {rule: min(steps) for rule, steps in selected.items() if len(steps) == 1})
        samples = part_samples(self._run.dataset, self._run.splits, self._parts)
        write_predictions(self._directory, about, samples, self._in_memory)

    def remove_steps(self) -> None:
        """Remove the files of single steps, once the run is done."""
        for step in saved_steps(self._directory):
            step_file(self._directory, step).unlink(missing_ok=True)

    def _needed(self) -> set[int]:
        steps = [record["step"] for record in self._records]
        if self._which == "all":
            return set(steps)
        if self._which == "selected":
            return {step for steps in self._selected().values() for step in steps}
        return set(steps).intersection([self._run.n_steps - 1]) if self._which == "last" else set()

    def _selected(self) -> dict[str, set[int]]:
        """Name of a selection rule -> the steps that it selects of the run so far, for each target one."""
        found: dict[str, set[int]] = {}
        for rule in METHODS:
            try:
                steps = {selected_step(METHODS[rule], Q(records)) for records in self._by_target()}
            except Exception as error:  # a broken plugin must not stop the run
                if rule not in self._broken_rules:
                    message = "warning: selection rule %s fails (%s); its predictions are not kept"
                    _log.warning(message, rule, error)
                self._broken_rules.add(rule)
                continue
            if known := {step for step in steps if step is not None}:
                found[rule] = known
        return found

    def _by_target(self) -> Iterable[list[Record]]:
        """The records, and if the run holds out several targets at once, as each of them sees these."""
        targets = sorted(self._run.config.test_envs)
        if len(targets) == 1 or not self._records:
            return [self._records]
        return by_column([record | {TARGET_SETS: [targets]} for record in self._records]).values()

    def _drop_others(self, needed: set[int]) -> None:
        self._in_memory = {step: arrays for step, arrays in self._in_memory.items() if step in needed}

    def _about(self, steps: list[int], selected: Mapping[str, int]) -> About:
        config, dataset = self._run.config, self._run.dataset
        return {
            "format": FORMAT,
            "dataset": config.dataset,
            "algorithm": config.algorithm,
            "test_envs": list(config.test_envs),
            "hparams_seed": config.hparams_seed,
            "trial_seed": config.trial_seed,
            "seed": config.seed,
            "classes": list(dataset.label_names()),
            "environments": list(dataset.ENVIRONMENTS),
            "parts": {name: environment_of(name, self._run.splits) for name in self._parts},
            "steps": steps,
            "selected": dict(selected),
        }


def part_samples(
    dataset: MultipleDomainDataset, splits: Sequence[Parts], parts: Mapping[str, SplitDataset]
) -> dict[str, Arrays]:
    """Part -> labels, positions and perhaps paths of its samples, as a file of predictions has them."""
    paths, found = relative_paths(dataset), {}
    for name, part in parts.items():
        own, files = positions(part), paths[environment_of(name, splits)]
        found[name] = {
            "labels": labels_of(part).astype(smallest_dtype(dataset.num_classes - 1)),
            "positions": np.array(own, dtype=np.uint32),
        }
        if files is not None:
            found[name]["images"] = packed_paths(files[position] for position in own)
    return found


def environment_of(part: str, splits: Sequence[Parts]) -> int:
    """Index of the environment that the part called `part` belongs to."""
    number, _, kind = part.removeprefix("env").partition("_")
    if kind != "uda":
        return int(number)
    # As in upstream, these are numbered by themselves.
    return [index for index, parts in enumerate(splits) if "uda" in parts][int(number)]
