"""A run that several processes share: rank 0 leads, and the other ranks do the same updates.

All ranks have the same model and optimizer. Updates equal those of a single process except for the order of
sums, so a run may resume with another number of processes. Only rank 0 evaluates, prints and writes.

Minibatches, initial weights, the random numbers of gradient surgery, and dropout masks with `shared_dropout`
are those of a single process. Without `shared_dropout` each rank draws dropout masks from its own stream:
they are independent as in a single process, but not the same. Batch norm in training mode is refused, because
each rank would have its own running statistics.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from domainbed.algorithms.base import Algorithm
from domainbed.errors import UsageError
from domainbed.training.averaging import Averaging
from domainbed.training.checkpoint import Checkpoint, compatible
from domainbed.training.config import TrainConfig
from domainbed.training.loop import Loop
from domainbed.training.minibatches import Minibatches
from domainbed.training.run import Run, build
from domainbed.training.run_dir import RunDir
from domainbed.training.stop_requests import StopRequests
from domainbed.training.torchrun import TorchrunGroup


def check_shareable(config: TrainConfig, group: TorchrunGroup) -> None:
    """Check that the processes of `group` can share the run; raises UsageError if not."""
    from domainbed.algorithms import ALGORITHMS, get_algorithm_class

    if not config.algorithm_class().DISTRIBUTED:
        able = [name for name in ALGORITHMS if get_algorithm_class(name).DISTRIBUTED]
        raise UsageError(
            f"{config.algorithm} runs in one process only; start it without torchrun, or choose one of "
            f"{', '.join(able)}"
        )
    if config.grouping != "domain":
        raise UsageError(f"--grouping {config.grouping} mixes the environments; start it without torchrun")
    num_sources = len(config.dataset_class().ENVIRONMENTS) - len(config.test_envs)
    if group.world_size > num_sources:
        raise UsageError(
            f"{group.world_size} processes for {num_sources} source environments of {config.dataset}; each "
            f"process needs one: use torchrun --nproc-per-node {num_sources} or less"
        )


def leader_loop(run: Run, directory: RunDir, group: TorchrunGroup) -> Loop:
    """The training loop of rank 0. The other ranks, in `follow`, build the run now.

    They wait until here so that a mistake in the settings is reported once, and files that building creates
    exist.
    """
    _check_no_batch_norm(run.algorithm, run.config)
    group.broadcast_command(directory.checkpoint)
    _keep_own_share(run, group)
    return _LeaderLoop(run, directory, group)


def follow(config: TrainConfig, group: TorchrunGroup) -> None:
    """Train as one of the other ranks. Ends by raising `Finished`, when rank 0 has left the group."""
    checkpoint: Checkpoint | None = group.wait_for_command()
    run = build(group.with_own_device(replace(config, check_images=False)))  # rank 0 has checked them
    _keep_own_share(run, group)
    loop = _FollowerLoop(run, group)
    if checkpoint is not None:
        loop.load_checkpoint(checkpoint)
    with StopRequests() as requests:
        loop.run_updates(requests)
        group.wait_for_command()


def _keep_own_share(run: Run, group: TorchrunGroup) -> None:
    """Reduce the run's minibatches to the environments of this rank."""
    own = group.assign_environments(len(run.sources))
    every = run.minibatches
    run.minibatches = Minibatches(every.parts[own], every.samplers[own], run.n_steps)
    run.algorithm.process_group = group
    group.sum_int(
        0
    )  # waits until all ranks are built, so that this does not count as time of the first update


def _check_no_batch_norm(algorithm: Algorithm, config: TrainConfig) -> None:
    """Check that no batch norm is in training mode; raises UsageError if one is."""
    algorithm.train()
    norms = (nn.modules.batchnorm._BatchNorm,)
    if any(isinstance(module, norms) and module.training for module in algorithm.modules()):
        raise UsageError(
            f"{config.algorithm} on {config.dataset} trains a batch norm, whose running statistics would "
            "differ between processes; set hyper-parameter freeze_bn if the featurizer has it, or choose "
            "another featurizer"
        )


class _LeaderLoop(Loop):
    """Training loop of rank 0."""

    def __init__(self, run: Run, directory: RunDir, group: TorchrunGroup) -> None:
        super().__init__(run, directory)
        self.group = group

    def run_updates(self, requests: StopRequests) -> None:
        super().run_updates(requests)
        self.group.others_wait = True

    def check(self, requests: StopRequests) -> None:
        self.group.stop_together(requests.check)

    def record(self, requests: StopRequests) -> None:
        record = super().record
        self.group.work_alone(lambda: record(requests))


class _FollowerLoop(Loop):
    """Training loop of the other ranks. It updates the algorithm, and writes nothing."""

    DISABLE_BAR = True

    def __init__(self, run: Run, group: TorchrunGroup) -> None:
        # The directory is not entered, so this process does not claim it.
        super().__init__(run, RunDir(Path(run.config.output_dir), {}))
        self.group = group
        self.run.averaging = Averaging(run.algorithm)
        self.seed_counters = (*self.seed_counters, group.rank)

    def check(self, requests: StopRequests) -> None:
        self.group.stop_together(requests.check)

    def record(self, requests: StopRequests) -> None:
        self.recorder.skip(self.updates - 1)
        self.group.wait_for_command()

    def save_checkpoint(self) -> None:
        """Does nothing: rank 0 writes the checkpoint."""

    def load_checkpoint(self, content: Checkpoint) -> None:
        with compatible(self.directory.path):
            self.updates = content["updates"]
            self.recorder.last_step = content["recorded"]
            self.load_attributes(content)
            self.run.algorithm.load_training_state(content["algorithm"])
