"""The settings of each run in a sweep's records, by name and kind.

They are the recorded settings (`steps`), the hyper-parameters (`lr`), and what identifies data, weights and
replaced code (`data.checksum`, `weights.sha256`, `replaced.algorithm`).
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from domainbed.errors import DomainBedError
from domainbed.hparams import Declaration, Hparam, Kind, resolve
from domainbed.json_input import parse_json
from domainbed.records.query import hashable
from domainbed.records.results_file import Record
from domainbed.training.config import RETIRED, SETTINGS

SEARCHED_BY_ALL = frozenset({"lr", "weight_decay", "batch_size", "resnet_dropout", "vit_dropout"})
"""Hyper-parameters that the search draws for every algorithm. So their declarations need not be imported."""

NAMED = frozenset({"dataset", "algorithm", "test_envs", "trial_seed", "hparams"})
"""Settings that say which cell and trial a run belongs to, and the text whose effect `hparams` records."""

DATA = ("data.checksum", "data.version", "data.contents", "environments")
"""Entries of records that identify the data."""

MAY_BE_UNKNOWN = ("data.", "weights.", "environments")
"""Beginnings of the names of entries that older records, and upstream's, do not have."""

INCIDENTAL_ENTRIES = (
    "data.counts",
    "data.skipped",
    "data.copies.images",
    "data.copies.other_class",
    "weights.adapted",
)
"""Entries of records that follow from data or weights, whose identities are `data.checksum` and
`weights.sha256`."""

ENTRIES_BEFORE: Mapping[str, Hashable] = {"data.copies.split": "apart"}
"""Values of entries in records that are older than the entry. The others are unknown in such records."""


@dataclass(frozen=True)
class Run:
    """One run, as its records describe it.

    Attributes:
        args, hparams: those of its records.
        records: its records, in order; those of both stages of `train_autolr`.
        others: what identifies data, weights and replaced code, by name.
    """

    args: Mapping[str, Any]
    hparams: Mapping[str, Any]
    records: list[Record]
    others: Mapping[str, Hashable] = field(default_factory=dict)

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return str(self.args["dataset"])

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.args["algorithm"])

    @property
    def seed(self) -> int:
        """The seed of everything that the trial seed does not decide."""
        return int(self.args.get("seed", SETTINGS["seed"].value_before))

    @property
    def last_step(self) -> int:
        """Step of the last record."""
        return int(self.records[-1]["step"])

    @cached_property
    def recorded(self) -> dict[str, Hashable]:
        """Each recorded setting, hyper-parameter and identity by name, except those in `NAMED`."""
        settings = {name: value for name, value in self.args.items() if name not in NAMED}
        return {name: hashable(value) for name, value in {**settings, **self.hparams, **self.others}.items()}


_ABSENT = object()
_SHARED = ("args", "hparams", "data", "weights", "replaced", "environments")


def runs_of(records: Iterable[Record]) -> list[Run]:
    """The runs that wrote `records`, in order. A run is a series of records with equal settings.

    The second stage of `train_autolr`, whose accuracies are on whole environments, belongs to the first.
    """
    runs: list[Run] = []
    for _, group in itertools.groupby(records, key=lambda record: [record.get(name) for name in _SHARED]):
        of_run = list(group)
        if runs and any(key.startswith("fd_") for key in of_run[0]):
            runs[-1].records.extend(of_run)
            continue
        first = of_run[0]
        hparams = first.get("hparams")
        if hparams is None:
            hparams = overrides_of(first["args"])
        runs.append(Run(first["args"], hparams, of_run, dict(_others(first))))
    return runs


def recorded_names(runs: Iterable[Run]) -> list[str]:
    """Names that some of `runs` recorded, in order of appearance."""
    return list(dict.fromkeys(name for run in runs for name in run.recorded))


def overrides_of(args: Mapping[str, Any]) -> dict[str, Any]:
    """The hyper-parameters that the setting `hparams` gives; empty if its text is no JSON object."""
    with contextlib.suppress(ValueError, TypeError):
        found = parse_json(args["hparams"]) if args.get("hparams") else {}
        return found if isinstance(found, dict) else {}
    return {}


def as_text(value: Hashable) -> str:
    """A value as `--where` takes it: 300, true, none, or the text itself."""
    return json.dumps(value) if isinstance(value, bool) else "none" if value is None else str(value)


class Kinds:
    """Kinds and older values of what is in `Run.recorded`. Declarations are looked up once for each method.

    A name that nothing declares is of `DESIGN` if it is a setting, and `SEARCHED` if it is a hyper-parameter.
    """

    def __init__(self) -> None:
        self._declared: dict[tuple[str, str, str], Mapping[str, Hparam]] = {}

    def differing(
        self, runs: Sequence[Run], names: Iterable[str] | None = None
    ) -> dict[Kind, dict[str, list[Hashable]]]:
        """What differs between `runs`: kind -> name -> value in each run.

        A run that does not tell its data or weights is taken to have those of the others, if these agree.

        Args:
            runs: the runs.
            names: names to compare; by default all that the runs recorded.
        """
        found: dict[Kind, dict[str, list[Hashable]]] = {kind: {} for kind in Kind}
        for name in recorded_names(runs) if names is None else names:
            if len({run.recorded.get(name, _ABSENT) for run in runs}) > 1:
                values = [self.value(name, run) for run in runs]
                known = set(values) - {None} if name.startswith(MAY_BE_UNKNOWN) else set(values)
                if len(known) > 1:
                    found[self._kind(name, runs)][name] = values
        return found

    def value(self, name: str, run: Run) -> Hashable:
        """Value of `name` in `run`: that of its time if the records lack it; None if nothing tells it."""
        if name in SETTINGS:
            return _effective(name, run.recorded.get(name, hashable(SETTINGS[name].value_before)), run)
        if name in run.recorded:
            return run.recorded[name]
        if name in RETIRED or _is_entry(name):
            return {**RETIRED, **ENTRIES_BEFORE}.get(name)
        declared = self._hparams(run).get(name)
        return None if declared is None else declared.value_before

    def is_declared(self, name: str, run: Run) -> bool:
        """Whether `name` is a setting, an identity, or a hyper-parameter of the run's method."""
        return name in SETTINGS or _is_entry(name) or name in SEARCHED_BY_ALL or name in self._hparams(run)

    def _kind(self, name: str, runs: Sequence[Run]) -> Kind:
        if name in SETTINGS:
            return SETTINGS[name].kind
        if _is_entry(name):
            return Kind.INCIDENTAL if name.startswith(INCIDENTAL_ENTRIES) else Kind.DESIGN
        if name in SEARCHED_BY_ALL:
            return Kind.SEARCHED
        declared = {self._hparams(run)[name].kind for run in runs if name in self._hparams(run)}
        if declared:
            return next(kind for kind in (Kind.DESIGN, Kind.SEARCHED, Kind.INCIDENTAL) if kind in declared)
        return Kind.DESIGN if any(name in run.args for run in runs) else Kind.SEARCHED

    def _hparams(self, run: Run) -> Mapping[str, Hparam]:
        key = (run.dataset, run.method, str(run.hparams.get("featurizer", "auto")))
        if key not in self._declared:
            algorithm, _, _ = run.method.partition("/")  # a condition may follow: AgrSum/pooled
            self._declared[key] = _declared_hparams(algorithm, run.dataset, key[2])
        return self._declared[key]


def _declared_hparams(algorithm: str, dataset: str, featurizer: str) -> Mapping[str, Hparam]:
    """Declarations of the hyper-parameters that a run may have. An unknown algorithm has the common ones."""
    from domainbed import hparams_registry
    from domainbed.training.run_hparams import optional_hparams

    tables: dict[str, Declaration] = dict(optional_hparams())
    with contextlib.suppress(DomainBedError):
        tables |= hparams_registry.featurizer_table(featurizer)
    tables |= hparams_registry.dataset_table(dataset)
    tables |= {**hparams_registry.table(algorithm), **hparams_registry.switches(algorithm)}
    return {name: resolve(declaration, dataset) for name, declaration in tables.items()}


def _effective(name: str, value: Hashable, run: Run) -> Hashable:
    """The value of a setting, or that of the run's dataset which it stands for."""
    from domainbed.datasets import get_dataset_class

    attribute = {"steps": "N_STEPS", "checkpoint_freq": "CHECKPOINT_FREQ"}.get(name)
    if attribute is not None and not value:
        with contextlib.suppress(
            DomainBedError
        ):  # such as a folder that was moved: its own number is unknown
            return int(getattr(get_dataset_class(run.dataset), attribute))
    return value


def _is_entry(name: str) -> bool:
    return "." in name or name == "environments"


def _others(record: Record) -> Iterator[tuple[str, Hashable]]:
    for name in ("data", "weights", "replaced"):
        if isinstance(record.get(name), dict):
            yield from _flattened(record[name], f"{name}.")
    if isinstance(record.get("environments"), list):
        yield "environments", ", ".join(map(str, record["environments"]))


def _flattened(entries: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Hashable]]:
    for name, value in entries.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", hashable(value)
