"""The settings of one run, each declared with its meaning, default, limits and role."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainbed.errors import UsageError, misspelt
from domainbed.hparams import (
    OPTIONS,
    REFERENCE_STEPS,
    Hparam,
    HparamValues,
    Kind,
    Table,
    Value,
    option,
    override,
    parse_overrides,
    resolve,
    synonym_in,
)
from domainbed.training.hparam_readers import refuse_unread, unread
from domainbed.training.run_state import read_json
from domainbed.training.settings import InSweep, setting, settings_of
from domainbed.training.splits import SUFFIX, SplitRequest, check_request, parse_scheme
from domainbed.training.trackers.registry import check_names as check_tracker_names

if TYPE_CHECKING:
    from domainbed.algorithms.base import Algorithm
    from domainbed.algorithms.schedules import Schedule
    from domainbed.datasets.base import MultipleDomainDataset
    from domainbed.networks.base import FeaturizerModule

_log = logging.getLogger(__name__)

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
        "ERM", "name of an algorithm (domainbed.scripts.list shows them)", in_sweep=InSweep.GRID
    )
    task: str = setting(
        "domain_generalization",
        "domain_adaptation adds unlabeled images of the targets to training",
        choices=("domain_generalization", "domain_adaptation"),
        in_sweep=InSweep.ALWAYS,
    )
    hparams: str | None = setting(
        None,
        "JSON object that overrides hyper-parameters, e.g. '{\"lr\": 0.001}'",
        in_sweep=InSweep.GRID,
    )
    hparams_seed: int = setting(
        0,
        "0: default hyper-parameters; other seeds: random ones",
        kind=Kind.SEARCHED,
        in_sweep=InSweep.GRID,
        at_least=0,
        at_most=LARGEST_SEED,
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
    )
    uda_holdout_fraction: float = setting(
        0,
        "share of each target's images that are given unlabeled",
        in_sweep=InSweep.GIVEN,
        at_least=0,
        below=1,
    )
    skip_model_save: bool = setting(
        False, "do not write model.pkl", kind=Kind.INCIDENTAL, in_sweep=InSweep.GIVEN
    )
    save_model_every_checkpoint: bool = setting(
        False, "also write model_step{N}.pkl at each evaluation", kind=Kind.INCIDENTAL
    )
    splits: str = setting(
        "holdout",
        "holdout (upstream's in/out), train/validation/test as 70/10/20, or a file of --write_splits",
        in_sweep=InSweep.GIVEN,
    )
    evaluate: str = setting(
        "selection",
        "selection: the parts that any selection method reads; reported: the sources' validation parts and "
        "the targets' test parts; all: also the sources' other parts (upstream)",
        kind=Kind.INCIDENTAL,
        choices=("selection", "reported", "all"),
        in_sweep=InSweep.GIVEN,
        value_before="all",
    )
    sampling: str = setting(
        "replacement",
        "how minibatches are drawn: with replacement (upstream), or without it through epochs",
        choices=("replacement", "epochs"),
        in_sweep=InSweep.GIVEN,
    )
    grouping: str = setting(
        "domain",
        "what an update sees as environments: domain, or a control: single_domain, pooled",
        choices=("domain", "single_domain", "pooled"),
        in_sweep=InSweep.SEVERAL,
    )
    precision: str = setting(
        "fp32",
        "fp32, tf32 (matrix products in TF32, on a GPU), or bf16 (autocast of the featurizer)",
        choices=("fp32", "tf32", "bf16"),
        in_sweep=InSweep.GIVEN,
    )
    channels_last: bool = setting(
        False,
        "store images with channels innermost in memory, for convolutions",
        kind=Kind.INCIDENTAL,
        in_sweep=InSweep.GIVEN,
    )
    compile: bool = setting(
        False,
        "compile the featurizer by torch.compile; the first update takes a minute",
        kind=Kind.INCIDENTAL,
        in_sweep=InSweep.GIVEN,
    )
    device: str = setting(
        "auto",
        "auto, cpu, cuda, cuda:1, ...",
        kind=Kind.INCIDENTAL,
        recorded=False,
        in_sweep=InSweep.GIVEN,
    )
    num_workers: int | None = setting(
        None,
        "number of loader processes, for images that are not cached (default: one for each core)",
        kind=Kind.INCIDENTAL,
        recorded=False,
        in_sweep=InSweep.GIVEN,
        at_least=0,
    )
    cache_dir: str | None = setting(
        None,
        "folder of decoded images, shared by runs, or none (default: ~/.cache/domainbed)",
        kind=Kind.INCIDENTAL,
        recorded=False,
        in_sweep=InSweep.GIVEN,
    )
    restart: bool = setting(
        False,
        "start the run again from the beginning; earlier files move to attempt-N",
        kind=Kind.INCIDENTAL,
        recorded=False,
    )
    accept_changed_code: bool = setting(
        False,
        "resume although the code of a plugin's class changed since the run began; run.json says from where",
        kind=Kind.INCIDENTAL,
        recorded=False,
        in_sweep=InSweep.UNNAMED,
    )
    deterministic: bool = setting(
        False,
        "use only operations that repeat exactly on a GPU",
        kind=Kind.INCIDENTAL,
        recorded=False,
        in_sweep=InSweep.GIVEN,
    )
    checkpoint_every: float = setting(
        5.0,
        "minutes between checkpoints; 0: after each update",
        kind=Kind.INCIDENTAL,
        recorded=False,
        in_sweep=InSweep.GIVEN,
        at_least=0,
    )
    write_splits: str | None = setting(
        None,
        "write the splits to this file (.json), for --splits; {dataset}, {trial_seed} and {test_envs} in its "
        "name stand for the run's",
        kind=Kind.INCIDENTAL,
        recorded=False,
        in_sweep=InSweep.GIVEN,
    )
    check_images: bool = setting(
        False,
        "first decode every image that the cache does not know, and look for copies",
        kind=Kind.INCIDENTAL,
        recorded=False,
    )
    classes: str = setting(
        "same",
        "whether environments of your own folder or list must have the same classes; union: may lack some",
        choices=("same", "union"),
        in_sweep=InSweep.GIVEN,
    )
    duplicates: str = setting(
        "keep",
        "images with the same contents as an earlier one of their environment: keep, drop, or error",
        choices=("keep", "drop", "error"),
        in_sweep=InSweep.GIVEN,
    )
    truncated: str = setting(
        "stop",
        "truncated images of your own folder or list: stop and name them, or keep what can be read of them",
        kind=Kind.INCIDENTAL,
        choices=("stop", "keep"),
        recorded=False,
        in_sweep=InSweep.GIVEN,
        value_before="keep",
    )
    shared_hparams: bool = setting(
        False,
        "ignore what this run does not read in --hparams; a sweep sets it where other runs read it",
        kind=Kind.INCIDENTAL,
        compared=False,
        in_sweep=InSweep.NEEDED,
    )
    earlier_swad: bool = setting(
        False,
        "count SWAD's checkpoints as earlier releases did (swad_counting equal); their sweeps set it",
        kind=Kind.INCIDENTAL,  # the hyper-parameter that it sets is recorded itself
        recorded=False,
        in_sweep=InSweep.NEEDED,
    )
    scale_warmups: bool = setting(
        False,
        "multiply default and random hyper-parameters that count updates, such as penalties' warm-ups, by "
        "steps / 5000",
        in_sweep=InSweep.GIVEN,
    )
    save_predictions: str = setting(
        "none",
        "steps whose predictions are kept in predictions.npz: none; the last; selected: those that selection "
        "rules select; all",
        kind=Kind.INCIDENTAL,
        choices=("none", "last", "selected", "all"),
        recorded=False,
        in_sweep=InSweep.UNNAMED,
    )
    tensorboard: bool = setting(
        False,
        "also write the records as TensorBoard events; as --trackers tensorboard",
        kind=Kind.INCIDENTAL,
        recorded=False,
        in_sweep=InSweep.GIVEN,
    )
    trackers: list[str] | None = setting(
        None,
        "where records go beside results.jsonl: any of tensorboard, mlflow, wandb, and those of plugins",
        kind=Kind.INCIDENTAL,
        recorded=False,
        in_sweep=InSweep.UNNAMED,
    )

    def recorded(self) -> dict[str, Any]:
        """The `args` entry of each record."""
        return {name: getattr(self, name) for name, each in SETTINGS.items() if each.recorded}

    def compared(self) -> dict[str, Any]:
        """The settings that a later run in the same directory must have too."""
        return {name: getattr(self, name) for name, each in SETTINGS.items() if each.compared}

    def check(self) -> None:
        """Check the settings, alone and together, before anything is computed or written.

        Raises: UsageError (UnknownName for an unknown algorithm, dataset or split scheme).
        """
        algorithm_class = self.algorithm_class()
        dataset_class = self.dataset_class()
        missing = dataset_class.missing_for(self.data_dir, parse_overrides(self.hparams))
        if missing:
            raise UsageError(missing)
        for name, declared in SETTINGS.items():
            declared.check(getattr(self, name))
        if not self.shared_hparams:
            self._check_unread()
        check_test_envs(self.test_envs, dataset_class.ENVIRONMENTS, self.dataset)
        if self.compile and not algorithm_class.COMPILABLE:
            raise UsageError(
                f"{self.algorithm} needs second derivatives of its network, which torch.compile does not "
                "support; leave out --compile"
            )
        if self.task == "domain_adaptation" and not self.uda_holdout_fraction:
            raise UsageError(
                "domain adaptation needs unlabeled images of the target environments: "
                "give --uda_holdout_fraction a share of them, e.g. 0.5"
            )
        check_tracker_names(self.tracker_names())
        check_request(self.split_request())
        if self.write_splits is not None and not self.write_splits.endswith(SUFFIX):
            raise UsageError(f"--write_splits takes a name that ends with .json, not {self.write_splits!r}")
        hparams = self.resolved_hparams()
        given = parse_overrides(self.hparams)
        if self.earlier_swad and (given.get("weight_averaging") != "swad" or "swad_counting" in given):
            raise UsageError(
                "--earlier_swad has no effect unless --hparams has weight_averaging swad, without "
                "swad_counting; leave it out"
            )
        algorithm_class.optimizer_choice(hparams)
        self.schedule(hparams)
        if hparams["class_balanced"] and self.sampling != "replacement":
            raise UsageError("class_balanced draws with replacement: leave out --sampling epochs")

    def split_request(self) -> SplitRequest:
        """What the splits of this run depend on."""
        scheme, options = parse_scheme(self.fill_placeholders(self.splits))
        return SplitRequest(
            test_envs=tuple(self.test_envs),
            trial_seed=self.trial_seed,
            holdout_fraction=self.holdout_fraction,
            uda_holdout_fraction=self.uda_holdout_fraction,
            options=options,
            scheme=scheme,
        )

    def schedule(self, hparams: Mapping[str, Any]) -> Schedule | None:
        """The schedule of learning rates that `hparams` choose; None for constant ones. Raises UsageError."""
        from domainbed import hparams_registry
        from domainbed.algorithms.schedules import make_schedule

        own = {**hparams_registry.table(self.algorithm), **hparams_registry.switches(self.algorithm)}
        return make_schedule(hparams, self.n_steps(), own)

    def tracker_names(self) -> list[str]:
        """Names of the trackers that get the records."""
        return [*(["tensorboard"] if self.tensorboard else []), *(self.trackers or [])]

    def n_steps(self) -> int:
        """Number of updates of the run."""
        return self.steps or self.dataset_class().N_STEPS

    def fill_placeholders(self, text: str) -> str:
        """`text` with this run's values for `{dataset}`, `{trial_seed}` and `{test_envs}`."""
        values = {
            "dataset": Path(self.dataset).stem,
            "trial_seed": self.trial_seed,
            "test_envs": "_".join(map(str, self.test_envs)),
        }
        for name, value in values.items():
            text = text.replace(f"{{{name}}}", str(value))
        return text

    def featurizer(self, **overrides: Value) -> FeaturizerModule:
        """A new featurizer as this run uses it; `overrides` win over the run's hyper-parameters.

        Raises: UsageError if its pretrained weights are missing; it says which file to put where.
        """
        from domainbed import networks

        hparams = self.resolved_hparams() | overrides
        if "clip_head" in hparams:
            hparams["clip_head"] = "random"  # it may need the names of classes, which only the dataset knows
        side = int(option(hparams, "input_size"))
        return networks.Featurizer(self.dataset_class().INPUT_SHAPE or (3, side, side), hparams)

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
        """One class for `check` and the run, so that a folder which was scanned need not be scanned again."""
        from domainbed.datasets import get_dataset_class, with_classes

        return with_classes(get_dataset_class(self.dataset), self.classes)

    def resolved_hparams(self) -> HparamValues:
        """The hyper-parameters of this run: default or random ones, then the overrides.

        They are the algorithm's, the dataset's, and those of the featurizer that the overrides name. With
        `shared_hparams`, overrides that the run does not read are left out.

        Raises: UsageError for an unknown name, an invalid value or an unknown featurizer.
        """
        from domainbed import hparams_registry, networks
        from domainbed.seeds import seed_hash

        self.dataset_class()  # a plugin's may declare options in its module
        typed = parse_overrides(self.hparams)
        if self.shared_hparams:
            ignored = self.unread_hparams()
            typed = {name: value for name, value in typed.items() if name not in ignored}
        overrides = networks.options.with_preset(typed)
        overrides = hparams_registry.with_only_featurizer(self.algorithm, overrides)
        of_featurizer = hparams_registry.featurizer_table(str(option(overrides, "featurizer")))
        if self.hparams_seed == 0:
            hparams = hparams_registry.default_hparams(self.algorithm, self.dataset)
            pairs = hparams_registry.draw_pairs(of_featurizer, self.dataset, 0)
            more = {name: default for name, (default, _) in pairs.items()}
        else:
            seed = seed_hash(self.hparams_seed, self.trial_seed)
            hparams = hparams_registry.random_hparams(self.algorithm, self.dataset, seed)
            pairs = hparams_registry.draw_pairs(of_featurizer, self.dataset, seed)
            more = {name: value for name, (_, value) in pairs.items()}
        hparams = HparamValues({**more, **hparams})
        own = self._declared_hparams()
        if self.scale_warmups:
            factor = self.n_steps() / REFERENCE_STEPS
            for name in hparams.keys() & own.keys():
                hparams[name] = resolve(own[name], self.dataset).scaled(hparams[name], factor)
        override(hparams, overrides, {**optional_hparams(), **own}, self.dataset)
        if option(hparams, "weight_averaging") == "swad":
            hparams.setdefault("swad_counting", self._swad_counting())
        if self.compile and "passes" in own:
            # A compiled network does not expose its layers to a joint pass.
            hparams["passes"] = "separate"
        return hparams

    def _swad_counting(self) -> Value:
        """How SWAD counts if no hyper-parameter says it: as the run began, or its sweep, else as today."""
        declared = OPTIONS["swad_counting"]
        begun = {} if self.restart else read_json(Path(self.output_dir, "run.json")) or {}
        if begun:
            found: Value = begun.get("hparams", {}).get("swad_counting", declared.value_before)
            return found
        return declared.value_before if self.earlier_swad else declared.default

    def _check_unread(self) -> None:
        """Refuse hyper-parameters that no part of the run reads.

        A run that earlier releases began with some resumes, with a warning.
        """
        unread = self.unread_hparams()
        begun = Path(self.output_dir, "run.json").exists() and not self.restart
        known = {**optional_hparams(), **self._declared_hparams()}
        if begun and all(name in known for name in unread):
            for name, reason in unread.items():
                _log.warning("hyper-parameter %r has no effect in this run, because %s", name, reason)
        else:
            self.refuse(unread)

    def refuse(self, unread: Mapping[str, str]) -> None:
        """Raise UsageError for the first of the names in `unread`, some of what `unread_hparams` returns."""
        refuse_unread(unread, {**optional_hparams(), **self._declared_hparams()})

    def unread_hparams(self) -> dict[str, str]:
        """The names in `hparams` that no part of the run reads -> why, as a clause."""
        from domainbed import hparams_registry
        from domainbed.networks.options import with_preset

        dataset_class, typed = self.dataset_class(), parse_overrides(self.hparams)
        options, own = optional_hparams(), self._declared_hparams()
        overrides = hparams_registry.with_only_featurizer(self.algorithm, with_preset(typed))
        return unread(self.algorithm, dataset_class, typed, overrides, own, options)

    def _declared_hparams(self) -> Table:
        """What the featurizer that `hparams` names, the dataset and the algorithm declare."""
        from domainbed import hparams_registry

        given = hparams_registry.with_only_featurizer(self.algorithm, parse_overrides(self.hparams))
        featurizer = str(option(given, "featurizer"))
        return {
            **hparams_registry.featurizer_table(featurizer),
            **hparams_registry.dataset_table(self.dataset),
            **hparams_registry.table(self.algorithm),
            **hparams_registry.switches(self.algorithm),
        }


SETTINGS = settings_of(TrainConfig)
"""Declarations of the fields of `TrainConfig`, by name."""


def from_settings(settings: Mapping[str, Any]) -> TrainConfig:
    """A config from keyword arguments.

    Args:
        settings: by name; paths may be `Path`s, numbers NumPy's, `hparams` a dict, and environments in
            `test_envs` names, which become indices.

    Raises: UsageError for an unknown name or a value of a wrong type.
    """
    for name in settings:
        if name not in SETTINGS:
            raise misspelt(f"unknown setting {name!r}", name, SETTINGS, _as_hparam(name))
    values = {name: SETTINGS[name].converted(value) for name, value in settings.items()}
    if any(isinstance(target, str) for target in values.get("test_envs", ())):
        values["test_envs"] = _target_indices(values)
    return TrainConfig(**values)


def _target_indices(values: Mapping[str, Any]) -> list[int]:
    """The indices of the target environments, some of which are given by name."""
    from domainbed.datasets import get_dataset_class
    from domainbed.datasets.environment_names import environment_indices

    dataset = values.get("dataset", SETTINGS["dataset"].default)
    return environment_indices(values["test_envs"], get_dataset_class(dataset).ENVIRONMENTS, dataset)


def _as_hparam(name: str) -> str | None:
    """How the hyper-parameter that is called `name`, by us or others, is given to a run; None if none is."""
    from domainbed import hparams_registry

    found = synonym_in(name, {**hparams_registry.table("ERM"), **optional_hparams()})
    return None if found is None else f"hparams={{{found!r}: ...}}"


def optional_hparams() -> Mapping[str, Hparam]:
    """Declarations of optional hyper-parameters that a run of any algorithm takes, by name."""
    from domainbed import hparams_registry
    from domainbed.training import averaging, initialization, swad  # noqa: F401 - they declare options

    return hparams_registry.options()


def check_test_envs(
    test_envs: Sequence[int], environments: Sequence[str], dataset: str, flag: str = "--test_envs"
) -> None:
    """Check that target environments exist, are distinct, and leave at least one source.

    Raises: UsageError, which names `flag`.
    """
    listed = ", ".join(f"{i} ({name})" for i, name in enumerate(environments))
    for index in test_envs:
        if not 0 <= index < len(environments):
            raise UsageError(f"{flag} {index} is out of range: {dataset} has environments {listed}")
    if len(set(test_envs)) < len(test_envs):
        raise UsageError(f"{flag} {' '.join(map(str, test_envs))} names an environment twice")
    if len(test_envs) == len(environments):
        raise UsageError(f"{flag} holds out all environments of {dataset} ({listed}); leave one to train on")
