"""The settings of one run, checked at the door."""

from __future__ import annotations

import dataclasses
import json
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from domainbed.errors import UsageError, check_choice, misspelt
from domainbed.hparams import Hparam, Value, option, override, parse_overrides
from domainbed.training import tensorboard_events

if TYPE_CHECKING:
    from domainbed.algorithms.base import Algorithm
    from domainbed.datasets.base import MultipleDomainDataset
    from domainbed.networks.base import FeaturizerModule

TASKS = ("domain_generalization", "domain_adaptation")
EVALUATE = ("selection", "all")
SAMPLING = ("replacement", "epochs")
GROUPING = ("domain", "single_domain", "pooled")
PRECISION = ("fp32", "tf32", "bf16")

EXECUTION = (
    *("device", "num_workers", "restart", "deterministic", "checkpoint_every"),
    *("write_splits", "check_images", "cache_dir", "tensorboard"),
)
"""Settings of how a run is carried out, not of what it computes; they are not written into records."""


@dataclass(frozen=True)
class TrainConfig:
    """Flags of `domainbed.scripts.train`, by the same names; its `--help` says what each means.

    The first sixteen are upstream's.
    """

    data_dir: str | None = None
    dataset: str = "RotatedMNIST"
    algorithm: str = "ERM"
    task: str = "domain_generalization"
    hparams: str | None = None
    hparams_seed: int = 0
    trial_seed: int = 0
    seed: int = 0
    steps: int | None = None
    checkpoint_freq: int | None = None
    test_envs: list[int] = field(default_factory=lambda: [0])
    output_dir: str = "train_output"
    holdout_fraction: float = 0.2
    uda_holdout_fraction: float = 0
    skip_model_save: bool = False
    save_model_every_checkpoint: bool = False
    splits: str = "holdout"
    evaluate: str = "selection"
    sampling: str = "replacement"
    grouping: str = "domain"
    precision: str = "fp32"
    channels_last: bool = False
    compile: bool = False
    device: str = "auto"
    num_workers: int | None = None
    cache_dir: str | None = None
    restart: bool = False
    deterministic: bool = False
    checkpoint_every: float = 5.0
    write_splits: str | None = None
    check_images: bool = False
    tensorboard: bool = False

    def recorded(self) -> dict[str, Any]:
        """What is written as `args` into every record."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in EXECUTION}

    def check(self) -> None:
        """Refuse what makes no sense, before anything is computed or written.

        Raises: UsageError (UnknownName for a misspelt algorithm, dataset or split scheme).
        """
        algorithm_class = self.algorithm_class()
        dataset_class = self.dataset_class()
        missing = dataset_class.missing(self.data_dir)
        if missing:
            raise UsageError(missing)
        check_test_envs(self.test_envs, dataset_class.ENVIRONMENTS, self.dataset)
        check_choice("--task takes", self.task, TASKS)
        check_choice("--evaluate takes", self.evaluate, EVALUATE)
        check_choice("--sampling takes", self.sampling, SAMPLING)
        check_choice("--grouping takes", self.grouping, GROUPING)
        check_choice("--precision takes", self.precision, PRECISION)
        if self.compile and not algorithm_class.COMPILABLE:
            raise UsageError(
                f"{self.algorithm} differentiates its network's gradients once more, which torch.compile "
                "can't: leave out --compile"
            )
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"--steps takes a number of updates of 1 or more, not {self.steps}")
        if self.checkpoint_freq is not None and self.checkpoint_freq < 0:
            raise UsageError(f"--checkpoint_freq takes a number of updates, not {self.checkpoint_freq}")
        if not self.checkpoint_every >= 0:
            raise UsageError(f"--checkpoint_every takes minutes, 0 or more, not {self.checkpoint_every}")
        if self.num_workers is not None and self.num_workers < 0:
            raise UsageError(f"--num_workers takes 0 or more processes, not {self.num_workers}")
        for name in ("seed", "trial_seed", "hparams_seed"):
            if not 0 <= getattr(self, name) < 2**63:
                raise UsageError(f"--{name} takes a number from 0 to 2^63 - 1, not {getattr(self, name)}")
        for name in ("holdout_fraction", "uda_holdout_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"--{name} takes a share from 0 to below 1, not {getattr(self, name)}")
        if self.task == "domain_adaptation" and not self.uda_holdout_fraction:
            raise UsageError(
                "domain adaptation needs unlabeled images of the target environments: "
                "give --uda_holdout_fraction a share of them, e.g. 0.5"
            )
        if self.tensorboard:
            tensorboard_events.require_tensorboard()
        from domainbed.training.splits import check_splits

        check_splits(self)
        if self.resolved_hparams()["class_balanced"] and self.sampling != "replacement":
            raise UsageError("class_balanced draws with replacement: leave out --sampling epochs")

    def featurizer(self, **overrides: Value) -> FeaturizerModule:
        """The featurizer of this run, new; `overrides` win over its hyper-parameters.

        Raises: UsageError if its pretrained weights can't be had; it says what to fetch and where to put it.
        """
        from domainbed import networks

        hparams = self.resolved_hparams() | overrides
        side = int(option(hparams, "input_size"))
        return networks.Featurizer(self.dataset_class().INPUT_SHAPE or (3, side, side), hparams)

    def algorithm_class(self) -> type[Algorithm]:
        """The class of the algorithm; raises UnknownName."""
        from domainbed.algorithms import get_algorithm_class

        return get_algorithm_class(self.algorithm)

    def dataset_class(self) -> type[MultipleDomainDataset]:
        """The class of the dataset; raises UnknownName."""
        from domainbed.datasets import get_dataset_class

        return get_dataset_class(self.dataset)

    def resolved_hparams(self) -> dict[str, Value]:
        """The hyper-parameters in force: default or random ones, then the overrides.

        Raises: UsageError for an unknown name, a wrong type, an unknown featurizer or averaging.
        """
        from domainbed import hparams_registry, networks
        from domainbed.seeds import seed_hash

        self.dataset_class()  # a plugin's may declare options in its module
        if self.hparams_seed == 0:
            hparams = hparams_registry.default_hparams(self.algorithm, self.dataset)
        else:
            seed = seed_hash(self.hparams_seed, self.trial_seed)
            hparams = hparams_registry.random_hparams(self.algorithm, self.dataset, seed)
        own = {**hparams_registry.table(self.algorithm), **hparams_registry.switches(self.algorithm)}
        overrides = networks.options.with_preset(parse_overrides(self.hparams))
        override(hparams, overrides, {**optional_hparams(), **own}, self.dataset)
        featurizer = str(option(hparams, "featurizer"))
        if featurizer != "auto":
            networks.featurizer_class(featurizer)
        if self.compile and "passes" in own:
            # What a joint pass does layer by layer, a compiled network does not show.
            hparams["passes"] = "separate"
        return hparams


def from_settings(settings: dict[str, Any]) -> TrainConfig:
    """A config from keyword arguments.

    Args:
        settings: by name; paths may be `Path`s, numbers NumPy's, `hparams` a dict.

    Raises: UsageError for an unknown name or a value of a wrong type.
    """
    hints = get_type_hints(TrainConfig)
    values = {}
    for name, value in settings.items():
        if name not in hints:
            raise misspelt(f"unknown setting {name!r}", name, hints)
        try:
            values[name] = _coerced(value, hints[name])
        except (TypeError, ValueError, AttributeError):
            wanted = str(getattr(hints[name], "__name__", hints[name]))
            raise UsageError(f"setting {name} takes a value of type {wanted}, not {value!r}") from None
    return TrainConfig(**values)


def _coerced(value: Any, kind: Any) -> Any:  # noqa: ANN401 - a user's value, and an annotation
    """`value` as plain Python of the annotated kind; raises TypeError or ValueError if it is none."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if value is None and type(None) in kinds:
        return None
    if isinstance(value, bool) or bool in kinds:
        if not (isinstance(value, bool) and bool in kinds):
            raise TypeError
        return value
    if list[int] in kinds:
        return [operator.index(each) for each in value]
    if str in kinds:
        return (
            json.dumps(value, default=lambda scalar: scalar.item())
            if isinstance(value, dict)
            else os.fspath(value)
        )
    return operator.index(value) if int in kinds or isinstance(value, int) else float(value)


def optional_hparams() -> Mapping[str, Hparam]:
    """Declarations of optional hyper-parameters that a run of any algorithm takes, by name."""
    from domainbed import hparams_registry
    from domainbed.training import averaging  # noqa: F401 - declares its options

    return hparams_registry.options()


def check_test_envs(test_envs: Sequence[int], environments: Sequence[str], dataset: str) -> None:
    """Refuse target environments that are out of range, repeated, or all there are."""
    listed = ", ".join(f"{i} ({name})" for i, name in enumerate(environments))
    for index in test_envs:
        if not 0 <= index < len(environments):
            raise UsageError(f"--test_envs {index} is out of range: {dataset} has environments {listed}")
    if len(set(test_envs)) < len(test_envs):
        raise UsageError(f"--test_envs {' '.join(map(str, test_envs))} names an environment twice")
    if len(test_envs) == len(environments):
        raise UsageError(
            f"--test_envs holds out all environments of {dataset} ({listed}); leave one to train on"
        )
