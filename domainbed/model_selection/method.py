"""What a selection method is, and the records that it reads."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import ClassVar

from domainbed.metrics import ACCURACY, Metric
from domainbed.records.environments import validated_sources
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.records.sweep_records import by_run

RunAcc = dict[str, float]
"""`{"val_acc": what to maximise, "test_acc": what to report}`: accuracies in [0, 1], unless the method's
`criterion` and `metric` are others."""


def get_test_records(records: Q[Record]) -> Q[Record]:
    """Records of runs with exactly one target environment."""
    return Q([record for record in records if len(record["args"]["test_envs"]) == 1])


def merge_records(records: Iterable[Record]) -> Q[Record]:
    """One record for each set of runs whose `args` differ in `holdout_fraction` alone.

    Each key has the value of the last record that has it. Merged records are in order of first appearance.
    """
    merged: dict[Hashable, Record] = {}
    for args, records_of_run in by_run(records):
        run = recursive_freeze({name: value for name, value in args.items() if name != "holdout_fraction"})
        for record in records_of_run:
            merged.setdefault(run, {}).update(record)
    return Q(list(merged.values()))


def recursive_freeze(obj: object) -> Hashable:
    """A hashable copy of `obj`: dicts and sets become frozensets, lists and tuples become tuples."""
    if isinstance(obj, dict):
        return frozenset((key, recursive_freeze(value)) for key, value in obj.items())
    if isinstance(obj, list | tuple):
        return tuple(recursive_freeze(value) for value in obj)
    if isinstance(obj, set | frozenset):
        return frozenset(recursive_freeze(value) for value in obj)
    assert isinstance(obj, Hashable)
    return obj


class SelectionMethod:
    """A rule that reads one accuracy from the records of one trial, dataset, algorithm and target.

    Subclasses are used as classes, without instances. They define `name` and `run_acc`.

    Attributes:
        name: description of the method, as tables show it.
        chosen_by: the accuracy that decides between hyper-parameters and between steps; by default `name`.
        reported: description of `test_acc`.
        test_key: key of `test_acc` in a record, with {} for the target; empty if a method reads it in another
            way.
        criterion: what `val_acc` is. Where smaller is better, `val_acc` is its negative.
        metric: what `test_acc` is.
        selects_on_target: whether the method selects by an accuracy on the target.
        merges_stages: whether to merge the two stages of a run of `train_autolr` into one record first
            (docs/compatibility.md, "Tables").
        reads_pairs: whether a result needs runs that hold out the target together with a second environment.
        needs: the runs and accuracies that a result needs, as the end of a sentence; empty if a method does
            not say.
    """

    name: ClassVar[str]
    chosen_by: ClassVar[str] = ""
    reported: ClassVar[str] = "the accuracy on the target"
    test_key: ClassVar[str] = ""
    criterion: ClassVar[Metric] = ACCURACY
    metric: ClassVar[Metric] = ACCURACY
    selects_on_target: ClassVar[bool] = False
    merges_stages: ClassVar[bool] = False
    reads_pairs: ClassVar[bool] = False
    needs: ClassVar[str] = ""

    def __init__(self) -> None:
        raise TypeError(f"{type(self).__name__} cannot be instantiated; use the class itself")

    @classmethod
    def about(cls) -> str:
        """What the method selects by and what it reports, as the beginning of a sentence."""
        return f"Selected by {cls.chosen_by or cls.name}; reported: {cls.reported}"

    @classmethod
    def criterion_in_unit(cls, val_acc: float) -> float:
        """`val_acc` as tables show it: an accuracy in %, a loss as it is, not its negative."""
        return cls.criterion.sign * cls.criterion.scale * val_acc

    @classmethod
    def run_acc(cls, run_records: Q[Record]) -> RunAcc | None:
        """Accuracies of one hparams seed at the selected step; None if no step can be selected."""
        raise NotImplementedError

    @classmethod
    def reported_acc(cls, record: Record) -> float | None:
        """`test_acc` if `record`, of a run with one target, is selected; None if the record lacks it.

        The one place where the reported accuracy is read, so that `on_all_images` can replace it.
        """
        (target,) = record["args"]["test_envs"]
        accuracy: float | None = record.get(cls.test_key.format(target))
        return accuracy

    @classmethod
    def hparams_accs(cls, records: Q[Record]) -> list[tuple[RunAcc, Q[Record]]]:
        """(accuracies, records) of each hparams seed with a result, in descending order of `val_acc`.

        As `ranked`; of equal seeds the largest comes first, as in upstream.
        """
        by_seed: dict[int, list[Record]] = {}
        for args, records_of_run in by_run(records):
            by_seed.setdefault(args["hparams_seed"], []).extend(records_of_run)
        return cls.ranked([Q(by_seed[seed]) for seed in sorted(by_seed)])

    @classmethod
    def ranked(cls, variants: Sequence[Q[Record]]) -> list[tuple[RunAcc, Q[Record]]]:
        """(accuracies, records) of each of `variants` with a result, in descending order of `val_acc`.

        Args:
            variants: records of the runs with equal hyper-parameters, for each of those that a trial tried.
                Of equal ones the last comes first. NaN comes last. If all of several variants have NaN,
                nothing decides between them, and none has a result.
        """
        if cls.merges_stages:
            variants = [merge_records(records) for records in variants]
        accs = [(cls.run_acc(records), records) for records in variants]
        chosen = Q([(acc, run_records) for acc, run_records in accs if acc is not None])
        if len(variants) > 1 and all(math.isnan(acc["val_acc"]) for acc, _ in chosen):
            return []
        return chosen.sorted(key=lambda pair: pair[0]["val_acc"])[::-1]

    @classmethod
    def sweep_acc(cls, records: Q[Record]) -> float | None:
        """`test_acc` of the best hparams seed; None if no seed has a result."""
        accs = cls.hparams_accs(records)
        return accs[0][0]["test_acc"] if accs else None

    @classmethod
    def validated(cls, records: Iterable[Record]) -> tuple[int, ...] | None:
        """Environments whose validation accuracy the method selects by, given records of one target.

        By default the sources that have one. None if the method reads other accuracies.
        """
        return validated_sources(get_test_records(Q(records)))


def selected_step(method: type[SelectionMethod], run_records: Q[Record]) -> int | None:
    """The step of one run that `method` selects; None if it selects none, or does not say which.

    Args:
        method: reads the accuracy that it reports by `reported_acc`, as all methods here do.
        run_records: records of the run; with those of further runs if the method `reads_pairs`.
    """

    class ReportsStep(method):  # type: ignore[misc, valid-type] # a base that is only known at run time
        @classmethod
        def reported_acc(cls, record: Record) -> float | None:
            # Negative, so that no accuracy of a method which reads it in another way passes for a step.
            return None if super().reported_acc(record) is None else -1.0 - record["step"]

    found = ReportsStep.run_acc(run_records)
    if found is None or not found["test_acc"] <= -1:
        return None
    return -1 - int(found["test_acc"])
