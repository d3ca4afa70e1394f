"""A training run that compares the environments' gradients at some of its updates.

The rows of a measurement go to alignment_training.csv in the run directory. Apart from that the run is an
ordinary one: measuring changes neither weights nor records, except for times. The samples are the same at
each update.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from domainbed.algorithms.base import Minibatch
from domainbed.errors import UsageError
from domainbed.training import api
from domainbed.training.acceleration import unaccelerated
from domainbed.training.checkpoint import Checkpoint
from domainbed.training.config import TrainConfig
from domainbed.training.loop import Loop
from domainbed.training.run import Run
from domainbed.training.run_dir import RunDir
from domainbed_gs.alignment.measure import measure_network
from domainbed_gs.alignment.network import measured_network
from domainbed_gs.alignment.settings import NUMBERS, TEXTS, TRAINING, Alignment
from domainbed_gs.studies.step_table import StepTable
from domainbed_gs.trained_models.loading import TrainedModel
from domainbed_gs.trained_models.samples import draw_samples

TABLE = StepTable(TEXTS, NUMBERS, "alignment")
"""The layout of alignment_training.csv in the directory of a run."""


def train(config: TrainConfig, how: Alignment, every: int) -> None:
    """Train as `domainbed.training.api.train` does, and measure before each `every`-th update and at the end.

    Raises: as `domainbed.training.api.train`; UsageError also if `how` is invalid, or several processes share
        the run.
    """
    if api.launched_by_torchrun():
        raise UsageError("gradients are compared in a single process; start it without torchrun")
    if every < 1:
        raise UsageError(f"--every must be at least 1, not {every}")
    if config.compile:
        raise UsageError("per-sample gradients cannot be formed in a compiled network; leave out --compile")
    how.check()
    settings = {f"alignment_{name}": value for name, value in how.columns().items()}
    api.train(
        config,
        make_loop=partial(AlignmentLoop, how=how, every=every),
        extra_settings={**settings, "alignment_every": every},
    )


class AlignmentLoop(Loop):
    """Training loop that measures before updates."""

    def __init__(self, run: Run, directory: RunDir, how: Alignment, every: int) -> None:
        super().__init__(run, directory)
        self.how = how
        self.every = every
        self.path = directory.path / TRAINING
        self.model = TrainedModel(
            path=directory.path,
            sha256="",
            algorithm=run.algorithm,
            args={"trial_seed": run.config.trial_seed, "test_envs": list(run.config.test_envs)},
            dataset=run.dataset,
            splits=run.splits,
            device=run.device,
        )
        self._samples = {
            part: draw_samples(self.model, part, how.samples, how.sample_seed) for part in how.parts
        }
        if directory.checkpoint is None:
            TABLE.keep_before(self.path, 0)

    def load_checkpoint(self, content: Checkpoint) -> None:
        super().load_checkpoint(content)
        finished = self.updates == self.run.n_steps  # then no update repeats the last measurement
        TABLE.keep_before(self.path, self.updates + finished)

    def update(self, minibatches: list[Minibatch], unlabeled: list[Tensor] | None) -> None:
        if self.updates % self.every == 0:
            self._measure()
        super().update(minibatches, unlabeled)
        if self.updates == self.run.n_steps:
            self._measure()

    def _measure(self) -> None:
        rows = []
        for part, samples in self._samples.items():
            x = samples[0].x[:1]
            # Gradients of the loss in float32 whatever the run's --precision, as those of its saved model.
            with (
                unaccelerated(self.run.algorithm),
                measured_network(self.run.algorithm, x, shared=False) as network,
            ):
                found = measure_network(network, samples, self.how, self.run.config.trial_seed)
            rows += [{"step": self.updates, "part": part, **row} for row in found]
        TABLE.append(self.path, rows)
