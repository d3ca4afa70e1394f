"""A training run that measures the similarity of per-sample gradients (ICCV 2021 paper, figure 2).

Before each update, one class and some samples of it from each source environment are drawn (see `Probes`).
The similarities of their gradients at the current weights become a row of similarity.csv in the run
directory. Apart from that the run is an ordinary one: measuring changes neither weights nor records, except
for times.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from torch import Tensor, nn

from domainbed.algorithms.base import Minibatch, concatenate
from domainbed.algorithms.erm import ERM
from domainbed.errors import UsageError, check_choice
from domainbed.seeds import Purpose, counter_seed, seed_all
from domainbed.training import api
from domainbed.training.acceleration import unaccelerated
from domainbed.training.checkpoint import Checkpoint
from domainbed.training.config import TrainConfig
from domainbed.training.loop import Loop
from domainbed.training.run import Run
from domainbed.training.run_dir import RunDir
from domainbed_gs.similarity.measure import similarities
from domainbed_gs.similarity.probes import Probe, Probes
from domainbed_gs.similarity.table import NAME, TABLE

MODES = ("eval", "train")
TRAIN_ON = ("all", "class")


@dataclass(frozen=True)
class Study:
    """Settings of the measurements.

    Attributes:
        samples: number of samples from each source environment.
        every: number of updates between two measurements.
        mode: mode of the network during measurements: "eval", or "train" (with dropout).
        train_on: minibatches of the updates: "all" (those of an ordinary run), or "class" (the measured
            samples, without augmentation).
    """

    samples: int = 8
    every: int = 1
    mode: str = "eval"
    train_on: str = "all"

    def check(self, config: TrainConfig) -> None:
        """Check the settings for a run with `config`; raises UsageError if they are invalid."""
        check_choice("--mode takes", self.mode, MODES)
        check_choice("--train_on takes", self.train_on, TRAIN_ON)
        if self.samples < 2:
            raise UsageError(f"--samples must be at least 2, not {self.samples}")
        if self.every < 1:
            raise UsageError(f"--every must be at least 1, not {self.every}")
        if self.train_on == "class" and self.every != 1:
            raise UsageError("--train_on class measures before every update; leave out --every")
        if config.compile:
            raise UsageError(
                "per-sample gradients cannot be formed in a compiled network; leave out --compile"
            )
        if not issubclass(config.algorithm_class(), ERM):
            raise UsageError(
                f"cannot measure gradients of {config.algorithm}; choose ERM, a gradient surgery method, or "
                "another algorithm that extends ERM"
            )


def train(config: TrainConfig, study: Study) -> None:
    """Train as `domainbed.training.api.train` does, with the measurements of `study`.

    Raises: as `domainbed.training.api.train`; UsageError also if `study` is invalid or several processes
        share the run.
    """
    if api.launched_by_torchrun():
        raise UsageError("gradient similarities are measured in a single process; start it without torchrun")
    study.check(config)
    api.train(
        config,
        make_loop=partial(StudyLoop, study=study),
        extra_settings={f"similarity_{name}": value for name, value in asdict(study).items()},
    )


class StudyLoop(Loop):
    """Training loop that measures gradient similarities before updates."""

    def __init__(self, run: Run, directory: RunDir, study: Study) -> None:
        super().__init__(run, directory)
        assert isinstance(run.algorithm, ERM)
        self.network = run.algorithm.network
        self.study = study
        self.probes = Probes([run.splits[k]["in"] for k in run.sources], study.samples, run.config.seed)
        self.path = directory.path / NAME
        self._names = run.dataset.class_names or [str(label) for label in range(run.dataset.num_classes)]
        if directory.checkpoint is None:
            TABLE.keep_before(self.path, 0)

    def load_checkpoint(self, content: Checkpoint) -> None:
        super().load_checkpoint(content)
        TABLE.keep_before(self.path, self.updates)

    def update(self, minibatches: list[Minibatch], unlabeled: list[Tensor] | None) -> None:
        if self.updates % self.study.every == 0:
            probe = self.probes.at(self.updates)
            own = [(x.to(self.run.device), y.to(self.run.device)) for x, y in probe.minibatches]
            self._measure(probe, own)
            minibatches = own if self.study.train_on == "class" else minibatches
        super().update(minibatches, unlabeled)

    def _measure(self, probe: Probe, minibatches: Sequence[Minibatch]) -> None:
        x, y = concatenate(minibatches)
        seed_all(counter_seed(self.run.config.seed, Purpose.PROBES, self.updates))  # for dropout
        # The gradients of the loss in float32, whatever the run's --precision.
        with unaccelerated(self.run.algorithm), _in_mode(self.network, self.study.mode == "train"):
            measured = similarities(self.network, x, y, [len(labels) for _, labels in minibatches])
        TABLE.append(self.path, {"step": self.updates, "class": self._names[probe.label], **measured})


@contextlib.contextmanager
def _in_mode(network: nn.Module, training: bool) -> Iterator[None]:
    before = network.training
    network.train(training)
    try:
        yield
    finally:
        network.train(before)
