"""One run by several processes: rank 0 leads, and the others follow it through the same updates.

All ranks hold the same model and optimizer, and an update is the single process's but for the order of
sums; so a run may go on with another number of processes than it began with. What writes, prints or
evaluates, rank 0 does alone.

Equal to the single process are minibatches, initial weights, whatever a surgery draws, and the masks of
dropout with `shared_dropout`. Without it each rank draws its masks from a stream of its own: they are
independent as in a single process, but not the same. Batch norm in training mode would leave each rank with
its own running statistics, and is refused.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from domainbed.algorithms.base import Algorithm
from domainbed.errors import UsageError
from domainbed.training import loop
from domainbed.training.averaging import Averaging
from domainbed.training.checkpoint import Checkpoint
from domainbed.training.config import TrainConfig
from domainbed.training.loop import Loop
from domainbed.training.minibatches import Minibatches
from domainbed.training.run import Run, build
from domainbed.training.run_dir import RunDir
from domainbed.training.stop_requests import StopRequests
from domainbed.training.torchrun import TorchrunGroup


def check_shareable(config: TrainConfig, group: TorchrunGroup) -> None:
    """Raise UsageError if `group` can't share this run."""
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
            f"needs one: give torchrun --nproc-per-node {num_sources} or less"
        )


def lead(run: Run, directory: RunDir, group: TorchrunGroup) -> None:
    """Rank 0's part of a run that it has built; for the rest as `loop.train`."""
    _check_layers(run.algorithm, run.config)
    # The others build only now: what can't be used is told once, and files made on the way are there.
    group.tell(directory.checkpoint)
    _share_out(run, group)
    loop.train(run, directory, lambda run, directory: _Leading(run, directory, group))


def follow(config: TrainConfig, group: TorchrunGroup) -> None:
    """The part of the other ranks. Raises Over when rank 0 has left."""
    checkpoint: Checkpoint | None = group.hear()
    run = build(group.placed(replace(config, check_images=False)))  # rank 0 has read them
    _share_out(run, group)
    following = _Following(run, group)
    if checkpoint is not None:
        following.go_on_from(checkpoint)
    with StopRequests() as requests:
        following.carry_out(requests)
        group.hear()


def _share_out(run: Run, group: TorchrunGroup) -> None:
    """Leave `run` with what belongs to this rank."""
    own = group.deal(len(run.sources))
    whole = run.minibatches
    run.minibatches = Minibatches(whole.parts[own], whole.samplers[own], run.n_steps)
    run.algorithm.process_group = group
    group.sum_int(0)  # all are ready: the first update's time does not count their building


def _check_layers(algorithm: Algorithm, config: TrainConfig) -> None:
    algorithm.train()
    norms = (nn.modules.batchnorm._BatchNorm,)
    if any(isinstance(module, norms) and module.training for module in algorithm.modules()):
        raise UsageError(
            f"{config.algorithm} on {config.dataset} trains a batch norm, whose statistics would differ from "
            "process to process; give hyper-parameter freeze_bn where the featurizer has it, or name another"
        )


class _Leading(Loop):
    """The loop of rank 0."""

    def __init__(self, run: Run, directory: RunDir, group: TorchrunGroup) -> None:
        super().__init__(run, directory)
        self.group = group

    def carry_out(self, requests: StopRequests) -> None:
        super().carry_out(requests)
        self.group.awaited = True

    def _check(self, requests: StopRequests) -> None:
        self.group.agree_on_leaving(requests.check)

    def _record(self, requests: StopRequests) -> None:
        record = super()._record
        self.group.alone(lambda: record(requests))


class _Following(Loop):
    """The loop of another rank: it updates, and writes nothing."""

    HIDDEN = True

    def __init__(self, run: Run, group: TorchrunGroup) -> None:
        # Not entered: this process has no claim.
        super().__init__(run, RunDir(Path(run.config.output_dir), {}))
        self.group = group
        self.run.averaging = Averaging(run.algorithm)
        self._draws = (*self._draws, group.rank)

    def _check(self, requests: StopRequests) -> None:
        self.group.agree_on_leaving(requests.check)

    def _record(self, requests: StopRequests) -> None:
        self._logged.clear()
        self._recorded = self.updates - 1
        self.group.hear()

    def save(self) -> None:
        """Rank 0 does."""

    def go_on_from(self, content: Checkpoint) -> None:
        self.updates = content["updates"]
        self._recorded = content["recorded"]
        self.run.algorithm.load_training_state(content["algorithm"])
