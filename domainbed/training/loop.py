"""The training loop of a run. It can be stopped between any two updates and resumed later."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from tqdm import tqdm

from domainbed.accelerators import takes_pinned_memory
from domainbed.algorithms.base import Minibatch
from domainbed.console import Tee
from domainbed.hparams import option
from domainbed.plugins import is_of_plugin
from domainbed.seeds import Purpose, counter_seed, seed_all
from domainbed.training import checkpoint, plugin_code, split_file
from domainbed.training.attributes import KeptAttributes
from domainbed.training.checkpoint import Checkpoint
from domainbed.training.data_identity import check_same_data
from domainbed.training.derived import fill_placeholders
from domainbed.training.evaluation import (
    BATCH_SIZE,
    EVALUATION,
    Evaluator,
    PartBatches,
    parts_to_evaluate,
    without_augmentation,
)
from domainbed.training.machine import describe_machine
from domainbed.training.memory_estimate import MemoryEstimate, available_bytes, estimate_memory
from domainbed.training.model_file import save_model
from domainbed.training.out_of_memory import explained
from domainbed.training.prefetcher import Prefetcher, Source
from domainbed.training.recorder import Recorder
from domainbed.training.remaining_time import RemainingTime
from domainbed.training.run import Run
from domainbed.training.run_dir import RunDir
from domainbed.training.stop_requests import (
    AFTER_STEP,
    AFTER_STEP_UNKEPT,
    Interrupted,
    Preempted,
    StopRequests,
)

LABELED, UNLABELED = "labeled", "unlabeled"
"""Sources of the prefetcher, beside `EVALUATION`."""

_REMEDY_OF_EVALUATION = (
    f"it computes {BATCH_SIZE} samples at a time; run fewer processes at a time, choose a smaller "
    "featurizer, or use --precision bf16"
)

_log = logging.getLogger(__name__)


def train(run: Run, directory: RunDir, make_loop: Callable[[Run, RunDir], Loop] | None = None) -> None:
    """Train the run, append a record at each checkpoint, and mark the directory as done.

    Resumes from the directory's checkpoint, if there is one. The records are then those of an uninterrupted
    run, except for times and memory.

    Args:
        run: the run to train.
        directory: its directory, which this process has claimed.
        make_loop: creates the loop. By default `Loop`.

    Raises:
        RunError: a loss is not finite, or a record cannot be written. Earlier records are kept.
        UsageError: the checkpoint was written by an incompatible version, with other code of a plugin, or on
            other data.
        Preempted: the run was asked to stop, and wrote a checkpoint.
    """
    code = plugin_code.hashes(run.algorithm, run.dataset)
    directory.check_code(code, run.config.accept_changed_code)
    check_same_data(directory, run.dataset.summary)
    if directory.unsaved:
        _log.warning(
            "starts from step 0, since the checkpoint lacks %s of %s; the earlier files are in attempt-N",
            ", ".join(directory.unsaved),
            type(run.algorithm).__name__,
        )
    loop = (make_loop or Loop)(run, directory)
    if directory.checkpoint is not None:
        loop.load_checkpoint(directory.checkpoint)
    if run.config.write_splits is not None:
        path = fill_placeholders(run.config, run.config.write_splits)
        split_file.write(Path(path), run.dataset, run.splits)
    entries = ("sizes", "hparams", "data", "weights", "environments", "replaced")
    constant = loop.recorder.constant
    summary = {name: constant[name] for name in entries if name in constant}
    directory.write_summary(
        {"counts": run.dataset.summary["counts"], **summary},
        machine=describe_machine(run.device),
        code=code,
    )
    loop.print_memory()
    with loop.recorder.trackers:
        # Launchers may signal twice. The second must not end this process before the first is recorded.
        loop.run_updates(directory.receive(StopRequests(notice=loop.NOTICE)))
        if not run.config.skip_model_save:
            with run.averaging.applied():
                loop.save_model("model.pkl")
        loop.recorder.predictions.finish()
        directory.finish()
        loop.recorder.predictions.remove_steps()
        checkpoint.remove(directory.path)


class Loop:
    """The training loop and its state between updates.

    Subclasses may override `update`, `record`, `check`, `save_checkpoint` and `load_checkpoint`.

    Attributes:
        updates: number of updates done.
        seed_counters: counters that the seed of every update starts with; its number follows.
        attributes: what the algorithm keeps in plain attributes.
        DISABLE_BAR: whether to hide the progress bar. None hides it unless stderr is a terminal.
        NOTICE: what the first Ctrl-C writes to stderr.
    """

    DISABLE_BAR: ClassVar[bool | None] = None
    NOTICE: ClassVar[str] = AFTER_STEP

    def __init__(self, run: Run, directory: RunDir) -> None:
        self.run = run
        self.directory = directory
        self.updates = 0
        self.seed_counters: tuple[int, ...] = (run.config.seed, Purpose.UPDATE)
        self.attributes = KeptAttributes(run.algorithm)
        self._unsaved: list[str] = []
        parts = parts_to_evaluate(run.splits, run.config.test_envs, run.config.evaluate)
        if not option(run.hparams, "augment_evaluation"):
            parts = {name: without_augmentation(part) for name, part in parts.items()}
        parts = {name: run.frozen.part(part) for name, part in parts.items()}
        sources: dict[str, Source] = {LABELED: run.minibatches, EVALUATION: PartBatches(parts)}
        if run.unlabeled is not None:
            sources[UNLABELED] = run.unlabeled
        self._prefetcher = Prefetcher(sources, run.num_workers, pin_memory=takes_pinned_memory(run.device))
        evaluator = Evaluator(run.algorithm, parts, run.device, self._prefetcher, run.config.seed)
        self.recorder = Recorder(run, directory, evaluator)
        self.remaining = RemainingTime(run.n_steps, run.checkpoint_freq)
        self._memory: MemoryEstimate | None = None
        self._available = 0.0

    def print_memory(self) -> None:
        """Print what an update will take of memory, or warn if that is more than there is."""
        self._memory = estimate_memory(self.run)
        self._available = available_bytes(self.run.device)
        if self._memory is not None:
            line = self._memory.line(self._available)
            if 0 < self._available < self._memory.total:
                _log.warning("warning: %s", line)
            else:
                print(line)  # noqa: T201 - with the lines about the data

    def run_updates(self, requests: StopRequests) -> None:
        """Do all remaining updates, with records and checkpoints.

        Raises: Preempted or Interrupted, after writing a checkpoint, if `requests` received a signal.
        """
        run = self.run
        steps = range(self.updates, run.n_steps)
        labeled = self._prefetcher.read(LABELED, steps)
        unlabeled = None if run.unlabeled is None else self._prefetcher.read(UNLABELED, steps)
        # err.txt would have the bar as one long line.
        stderr = sys.stderr.stream if isinstance(sys.stderr, Tee) else sys.stderr
        bar = tqdm(
            desc=run.config.algorithm,
            total=run.n_steps,
            initial=self.updates,
            unit="step",
            leave=False,
            disable=self.DISABLE_BAR,
            file=stderr,
            mininterval=0.1 if stderr.isatty() else 1.0,
        )
        first_step, saved_at = self.updates, time.monotonic()
        run.algorithm.train()
        self.recorder.stopwatch.start()
        try:
            with bar:
                while True:
                    if self.recorder.is_due(self.updates - 1):
                        self.record(requests)
                    if self.updates == run.n_steps:
                        return
                    if time.monotonic() - saved_at >= 60 * run.config.checkpoint_every:
                        self.save_checkpoint()
                        saved_at = time.monotonic()
                    self.check(requests)
                    inputs = None
                    if unlabeled is not None:
                        inputs = [x for x, _ in _on_device(next(unlabeled), run.device)]
                    with explained("an update", self._remedy):
                        self.update(_on_device(next(labeled), run.device), inputs)
                    bar.update()
                    if line := self.remaining.line(self.updates):
                        bar.clear()
                        print(line)  # noqa: T201 - between the rows of records
                    self.directory.set_progress(self.updates, run.n_steps, first_step)
        except (Preempted, Interrupted):
            self.save_checkpoint()
            raise
        finally:
            self._prefetcher.close()

    def update(self, minibatches: list[Minibatch], unlabeled: list[Tensor] | None) -> None:
        """Do one update of the algorithm."""
        # The seed depends on the number of the update alone, so a resumed run draws the same numbers.
        seed_all(counter_seed(*self.seed_counters, self.updates))
        if self.run.schedule is not None:
            self.run.schedule.apply(self.run.algorithm, self.updates)
        self.recorder.log(self.run.algorithm.update(minibatches, unlabeled))
        self.run.averaging.update()
        self.updates += 1

    def record(self, requests: StopRequests) -> None:
        """Evaluate the algorithm and append the record that is due after the last update."""
        config, step, began = self.run.config, self.updates - 1, time.monotonic()
        with explained("an evaluation", lambda: _REMEDY_OF_EVALUATION):
            self.recorder.begin(step, requests.check)
        with self.run.averaging.applied():
            with explained("an evaluation", lambda: _REMEDY_OF_EVALUATION):
                self.recorder.finish(requests.check)
            if config.save_model_every_checkpoint and not config.skip_model_save:
                self.save_model(f"model_step{step}.pkl")
        self.remaining.evaluated(self.updates, time.monotonic() - began)
        self.recorder.stopwatch.start()

    def _remedy(self) -> str:
        """What to change if an update runs out of memory."""
        found = "reduce batch_size" if self._memory is None else self._memory.remedy(self._available)
        return f"{found}, or run fewer processes at a time"

    def check(self, requests: StopRequests) -> None:
        """Raise Preempted or Interrupted if the run should stop now."""
        requests.check()

    def save_checkpoint(self) -> None:
        """Write a checkpoint. If the disk is full, the previous one is kept and training continues."""
        self.directory.check_claim()
        self.recorder.stopwatch.stop()
        content: Checkpoint = {
            "updates": self.updates,
            **self.recorder.state_dict(),
            "algorithm": self.run.algorithm.training_state(),
            "attributes": self.attributes.state_dict(),
            "averaging": self.run.averaging.state_dict(),
            "generators": checkpoint.generator_states(),
        }
        self._report_unsaved(content["attributes"]["unsaved"])
        try:
            self.recorder.predictions.write_steps()
            checkpoint.save(self.directory.path, content)
        except OSError as error:
            _log.warning("cannot write a checkpoint at step %d: %s", self.updates, error.strerror)
        else:
            self.recorder.predictions.remove_unneeded()
        self.recorder.stopwatch.start()

    def load_checkpoint(self, content: Checkpoint) -> None:
        """Restore the state from a checkpoint, and drop all records written after it.

        Raises: UsageError if the checkpoint was written by an incompatible version.
        """
        with checkpoint.compatible(self.directory.path):
            self.updates = content["updates"]
            self.load_attributes(content)
            self.run.algorithm.load_training_state(content["algorithm"])
            self.run.averaging.load_state_dict(content["averaging"])
            checkpoint.set_generator_states(content["generators"])
            self.recorder.load_state_dict(content)
        self.recorder.drop_later_records()

    def load_attributes(self, content: Checkpoint) -> None:
        """Restore the algorithm's attributes. Warns a plugin of a checkpoint that is too old to have any."""
        if "attributes" in content:
            self.attributes.load_state_dict(content["attributes"])
        elif is_of_plugin(type(self.run.algorithm)):
            _log.warning(
                "an older version wrote the checkpoint: attributes of %s that are not in STATE start with "
                "their initial values; use --restart if updates depend on them",
                type(self.run.algorithm).__name__,
            )

    def _report_unsaved(self, unsaved: list[str]) -> None:
        """Warn of attributes that a checkpoint lacks, once."""
        if unsaved and not self._unsaved:
            _log.warning(
                "checkpoints of this run cannot resume it, which would start from step 0: they cannot hold "
                "%s of %s; give such an object state_dict and load_state_dict, or name the attribute in "
                "TRANSIENT if updates do not depend on it",
                ", ".join(unsaved),
                type(self.run.algorithm).__name__,
            )
        self._unsaved = unsaved

    def save_model(self, name: str) -> None:
        """Write the algorithm's current weights to the file `name` in the run's directory."""
        self.directory.check_claim()
        save_model(
            self.directory.path / name,
            self.run.algorithm,
            self.run.dataset,
            num_domains=len(self.run.sources),
            args=self.run.config.recorded(),
        )


class ShownLoop(Loop):
    """The loop of a run in a notebook or program, whose progress bar is shown wherever stderr goes."""

    DISABLE_BAR = False


class UnkeptLoop(ShownLoop):
    """The loop of such a run whose files are removed at its end."""

    NOTICE = AFTER_STEP_UNKEPT


def _on_device(minibatches: list[Minibatch], device: torch.device) -> list[Minibatch]:
    if device.type == "cpu":
        return minibatches
    return [(x.to(device, non_blocking=True), y.to(device, non_blocking=True)) for x, y in minibatches]
