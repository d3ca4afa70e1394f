"""The settings of one run, each declared with its meaning, default, limits and role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from domainbed.hparams import Kind
from domainbed.training.settings import Group, InSweep, setting, settings_of

if TYPE_CHECKING:
    from domainbed.algorithms.base import Algorithm
    from domainbed.datasets.base import MultipleDomainDataset

LARGEST_SEED = 2**63 - 1

RETIRED: Mapping[str, Any] = {}
"""Settings that only earlier releases had -> the value that changed nothing: runs with it still resume."""


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one run: flags of `domainbed.scripts.train` by the same names.

    The first sixteen are upstream's. A setting is declared here alone: parsers, checks, records, sweeps and
    docs/settings.md are made from the declarations.
    """

    data_dir: str | None = setting(
        None,
        "root folder of the datasets; some datasets need none",
        kind=Kind.INCIDENTAL,
        in_sweep=InSweep.ALWAYS,
    )
    dataset: str = setting(
        "RotatedMNIST", "name of a dataset, or path of root/environment/class/image", in_sweep=InSweep.GRID
    )
    algorithm: str = setting(
        "ERM", "name of an algorithm (`domainbed list algorithms` shows them)", in_sweep=InSweep.GRID
    )
    task: str = setting(
        "domain_generalization",
        "domain_adaptation adds unlabeled images of the targets to training",
        choices=("domain_generalization", "domain_adaptation"),
        in_sweep=InSweep.ALWAYS,
        group=Group.SPLITS,
    )
    hparams: str | None = setting(
        None,
        "JSON object that overrides hyper-parameters, e.g. '{\"lr\": 0.001}'",
        in_sweep=InSweep.GRID,
        group=Group.HPARAMS,
    )
    hparams_seed: int = setting(
        0,
        "0: default hyper-parameters; other seeds: random ones",
        kind=Kind.SEARCHED,
        in_sweep=InSweep.GRID,
        at_least=0,
        at_most=LARGEST_SEED,
        group=Group.HPARAMS,
    )
    trial_seed: int = setting(
        0,
        "seed of the splits and of random hyper-parameters",
        kind=Kind.SEED,
        in_sweep=InSweep.GRID,
        at_least=0,
        at_most=LARGEST_SEED,
    )
    seed: int = setting(
        0,
        "seed of everything else",
        kind=Kind.SEED,
        in_sweep=InSweep.GRID,
        at_least=0,
        at_most=LARGEST_SEED,
    )
    steps: int | None = setting(
        None, "number of updates (default: the dataset's)", in_sweep=InSweep.GIVEN, at_least=1
    )
    checkpoint_freq: int | None = setting(
        None,
        "number of updates from one evaluation to the next; 0: the dataset's (default: the dataset's)",
        in_sweep=InSweep.GIVEN,
        at_least=0,
        group=Group.SPLITS,
    )
    test_envs: list[int] = setting(
        [0], "target environments, by index or name", in_sweep=InSweep.GRID, takes_names=True
    )
    output_dir: str = setting(
        "train_output",
        "directory of the run; created if missing",
        kind=Kind.INCIDENTAL,
        compared=False,
        in_sweep=InSweep.GRID,
    )
    holdout_fraction: float = setting(
        0.2,
        "share of each environment for validation",
        in_sweep=InSweep.ALWAYS,
        at_least=0,
        below=1,
        group=Group.SPLITS,
    )
    uda_holdout_fraction: float = setting(
        0,
        "share of each target's images that are given unlabeled",
        in_sweep=InSweep.GIVEN,
        at_least=0,
        below=1,
        group=Group.SPLITS,
    )
    skip_model_save: bool = setting(
        False,
        "do not write model.pkl",
        kind=Kind.INCIDENTAL,
        in_sweep=InSweep.GIVEN,
        group=Group.FILES,
    )
    save_model_every_checkpoint: bool = setting(
        False,
        "also write model_step{N}.pkl at each evaluation",
        kind=Kind.INCIDENTAL,
        group=Group.FILES,
    )
    splits: str = setting(
        "holdout",
        "holdout (upstream's in/out), train/validation/test as 70/10/20, or a file of --write_splits",
        in_sweep=InSweep.GIVEN,
        group=Group.SPLITS,
    )
    evaluate: str = setting(
        "selection",
        "selection: the parts that any selection method reads; reported: the sources' validation parts and "
        "the targets' test parts; all: also the sources' other parts (upstream)",
        kind=Kind.INCIDENTAL,
        choices=("selection", "reported", "all"),
        in_sweep=InSweep.GIVEN,
        value_before="all",
        group=Group.SPLITS,
    )
    sampling: str = setting(
        "replacement",
        "how minibatches are drawn: with replacement (upstream), or without it through epochs",
        choices=("replacement", "epochs"),
        in_sweep=InSweep.GIVEN,
        group=Group.SPLITS,
    )
    grouping: str = setting(
        "domain",
        "what an update sees as environments: domain, or a control: single_domain, pooled",
        choices=("domain", "single_domain", "pooled"),
        in_sweep=InSweep.SEVERAL,
        group=Group.SPLITS,
    )
    precision: str = setting(
        "fp32",
        "fp32, tf32 (matrix products in TF32, on a GPU), or bf16 (autocast of the featurizer)",
        choices=("fp32", "tf32", "bf16"),
        in_sweep=InSweep.GIVEN,
        group=Group.SPEED,
    )
    channels_last: bool = setting(
        False,
        "store images with channels innermost in memory, for convolutions",
        kind=Kind.INCIDENTAL,
        in_sweep=InSweep.GIVEN,
        group=Group.SPEED,
    )
    compile: bool = setting(
        False,
        "compile the featurizer by torch.compile; the first update takes a minute",
        kind=Kind.INCIDENTAL,
        in_sweep=InSweep.GIVEN,
        group=Group.SPEED,
    )
    device: str = setting(
        "auto",
        "auto, cpu, cuda, cuda:1, ...",
        kind=Kind.INCIDENTAL,
        recorded=False,
        in_sweep=InSweep.GIVEN,
        group=Group.SPEED,
    )
    num_workers: int | None = setting(
        None,
        "number of loader processes, for images that are not cached (default: one for each core)",
        kind=Kind.INCIDENTAL,
        recorded=False,
        in_sweep=InSweep.GIVEN,
        at_least=0,
        group=Group.IMAGES,
    )
    cache_dir: str | None = setting(
        None,
        "folder of decoded images, shared by runs, or none (default: ~/.cache/domainbed)",
        kind=Kind.INCIDENTAL,
        recorded=False,
        in_sweep=InSweep.GIVEN,
        group=Group.IMAGES,
    )
    restart: bool = setting(
        False,
        "start the run again from the beginning; earlier files move to attempt-N",
        kind=Kind.INCIDENTAL,
        recorded=False,
        group=Group.RESUMING,
    )
    accept_changed_code: bool = setting(
        False,
        "resume although the code of a plugin's class changed since the run began; run.json says from where",
        kind=Kind.INCIDENTAL,
        recorded=False,
        in_sweep=InSweep.UNNAMED,
        group=Group.RESUMING,
    )
    deterministic: bool = setting(
        False,
        "use only operations that repeat exactly on a GPU",
        kind=Kind.INCIDENTAL,
        recorded=False,
        in_sweep=InSweep.GIVEN,
        group=Group.SPEED,
    )
    checkpoint_every: float = setting(
        5.0,
        "minutes between checkpoints; 0: after each update",
        kind=Kind.INCIDENTAL,
        recorded=False,
        in_sweep=InSweep.GIVEN,
        at_least=0,
        group=Group.RESUMING,
    )
    write_splits: str | None = setting(
        None,
        "write the splits to this file (.json), for --splits; {dataset}, {trial_seed} and {test_envs} in its "
        "name stand for the run's",
        kind=Kind.INCIDENTAL,
        recorded=False,
        in_sweep=InSweep.GIVEN,
        group=Group.SPLITS,
    )
    check_images: bool = setting(
        False,
        "first decode every image that the cache does not know, and look for copies",
        kind=Kind.INCIDENTAL,
        recorded=False,
        group=Group.IMAGES,
    )
    classes: str = setting(
        "same",
        "whether environments of your own folder or list must have the same classes; union: may lack some",
        choices=("same", "union"),
        in_sweep=InSweep.GIVEN,
        group=Group.IMAGES,
    )
    duplicates: str = setting(
        "keep",
        "images with the same contents as an earlier one of their environment: keep, drop, or error",
        choices=("keep", "drop", "error"),
        in_sweep=InSweep.GIVEN,
        group=Group.IMAGES,
    )
    truncated: str = setting(
        "stop",
        "truncated images of your own folder or list: stop and name them, or keep what can be read of them",
        kind=Kind.INCIDENTAL,
        choices=("stop", "keep"),
        recorded=False,
        in_sweep=InSweep.GIVEN,
        value_before="keep",
        group=Group.IMAGES,
    )
    shared_hparams: bool = setting(
        False,
        "ignore what this run does not read in --hparams; a sweep sets it where other runs read it",
        kind=Kind.INCIDENTAL,
        compared=False,
        in_sweep=InSweep.NEEDED,
        group=Group.HPARAMS,
    )
    earlier_swad: bool = setting(
        False,
        "count SWAD's checkpoints as earlier releases did (swad_counting equal); their sweeps set it",
        kind=Kind.INCIDENTAL,  # the hyper-parameter that it sets is recorded itself
        recorded=False,
        in_sweep=InSweep.NEEDED,
        group=Group.HPARAMS,
    )
    scale_warmups: bool = setting(
        False,
        "multiply default and random hyper-parameters that count updates, such as penalties' warm-ups, by "
        "steps / 5000",
        in_sweep=InSweep.GIVEN,
        group=Group.HPARAMS,
    )
    save_predictions: str = setting(
        "none",
        "steps whose predictions are kept in predictions.npz: none; the last; selected: those that selection "
        "rules select; all",
        kind=Kind.INCIDENTAL,
        choices=("none", "last", "selected", "all"),
        recorded=False,
        in_sweep=InSweep.UNNAMED,
        group=Group.FILES,
    )
    tensorboard: bool = setting(
        False,
        "also write the records as TensorBoard events; as --trackers tensorboard",
        kind=Kind.INCIDENTAL,
        recorded=False,
        in_sweep=InSweep.GIVEN,
        group=Group.FILES,
    )
    trackers: list[str] | None = setting(
        None,
        "where records go beside results.jsonl: any of tensorboard, mlflow, wandb, and those of plugins",
        kind=Kind.INCIDENTAL,
        recorded=False,
        in_sweep=InSweep.UNNAMED,
        group=Group.FILES,
    )

    def recorded(self) -> dict[str, Any]:
        """The `args` entry of each record."""
        return {name: getattr(self, name) for name, each in SETTINGS.items() if each.recorded}

    def compared(self) -> dict[str, Any]:
        """The settings that a later run in the same directory must have too."""
        return {name: getattr(self, name) for name, each in SETTINGS.items() if each.compared}

    def n_steps(self) -> int:
        """Number of updates of the run."""
        return self.steps or self.dataset_class().N_STEPS

    def algorithm_class(self) -> type[Algorithm]:
        """The class of the algorithm; raises UnknownName."""
        from domainbed.algorithms import get_algorithm_class

        return get_algorithm_class(self.algorithm)

    def dataset_class(self) -> type[MultipleDomainDataset]:
        """The class of the dataset.

        Raises: UnknownName; UsageError if `classes` is "union" and the dataset's classes are fixed.
        """
        return self._dataset_class

    @cached_property
    def _dataset_class(self) -> type[MultipleDomainDataset]:
        """One class for the checks and the run, so that a folder which was scanned is not scanned again."""
        from domainbed.datasets import get_dataset_class, with_classes

        return with_classes(get_dataset_class(self.dataset), self.classes)


SETTINGS = settings_of(TrainConfig)
"""Declarations of the fields of `TrainConfig`, by name."""
