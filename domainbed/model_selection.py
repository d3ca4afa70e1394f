"""Selection methods: the hyper-parameters and the step at which a sweep's accuracy is reported.

A method is a class registered in `METHODS` under a short name. Plugins register their own there. The methods
of upstream are those of Gulrajani and Lopez-Paz 2021 (arXiv 2007.01434), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import ClassVar

import numpy as np

from domainbed.metrics import ACCURACY, METRICS, Metric
from domainbed.records.environments import environments, out_acc, validated_sources
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.records.sweep_records import by_run
from domainbed.records.target_sets import target_validation
from domainbed.registry import Registry

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


METHODS: Registry[type[SelectionMethod]] = Registry.of_module("Selection method")

UPSTREAM = ("iid", "loo", "oracle")
"""The methods that upstream reports, in its order."""


@METHODS.register("iid")
class IIDAccuracySelectionMethod(SelectionMethod):
    """The step with the largest mean accuracy on the out-splits of the source environments."""

    name = "training-domain validation set"
    chosen_by = "the best mean validation accuracy of the sources (out-splits) over all steps"
    reported = "the accuracy on the target's in-split at that step"

    test_key = "env{}_in_acc"
    validation_key: ClassVar[str] = "env{}_out_acc"
    needs = "a run that holds out this target alone, with its accuracy on in-splits"

    @classmethod
    def over_sources(cls, values: Sequence[float]) -> float:
        """The number to maximise, of the values that the sources have under `validation_key`."""
        return _mean(values)

    @classmethod
    def run_acc(cls, run_records: Q[Record]) -> RunAcc | None:
        """Accuracies at the first such step.

        Sources without a validation accuracy in any record are left out of the mean. Steps that lack the
        accuracy on the target, or that of another source, are skipped. None if no source has an accuracy.
        """
        records = get_test_records(run_records)
        sources = validated_sources(records)
        accs = [cls._step_acc(record, sources) for record in records] if sources else []
        complete = [acc for acc in accs if acc is not None and not math.isnan(acc["val_acc"])]
        return Q(complete).argmax("val_acc") if complete else None

    @classmethod
    def _step_acc(cls, record: Record, sources: Sequence[int]) -> RunAcc | None:
        val_accs = [record[key] for key in map(cls.validation_key.format, sources) if key in record]
        test_acc = cls.reported_acc(record)
        if test_acc is None or len(val_accs) < len(sources):
            return None
        return {"val_acc": cls.over_sources(val_accs), "test_acc": test_acc}


@METHODS.register("loo")
class LeaveOneOutSelectionMethod(SelectionMethod):
    """Leave-one-domain-out cross-validation.

    Selects the step with the largest mean accuracy on the source environments, each measured in a run that
    holds out this source as well. Needs runs with two targets, {target, source}, for every source.
    """

    name = "leave-one-domain-out cross-validation"
    chosen_by = "the best mean accuracy over all steps on each source when it is held out as well"
    reported = "the accuracy on the target's in-split at that step"
    test_key = "env{}_in_acc"
    reads_pairs = True
    needs = "a run that holds out this target alone, and one for each source that holds out this source too"

    @classmethod
    def run_acc(cls, run_records: Q[Record]) -> RunAcc | None:
        """Accuracies at the first such step, among the steps that all runs have recorded."""
        known = sorted({i for record in run_records for i in environments(record)})
        accs = [cls._step_acc(records, known) for _, records in run_records.group("step")]
        complete = [acc for acc in accs if acc is not None and not math.isnan(acc["val_acc"])]
        return Q(complete).argmax("val_acc") if complete else None

    @classmethod
    def validated(cls, records: Iterable[Record]) -> tuple[int, ...] | None:
        """None: sources are validated on the images that other runs hold out."""
        return None

    @classmethod
    def _step_acc(cls, records: Q[Record], known: Sequence[int]) -> RunAcc | None:
        test_records = get_test_records(records)
        if len(test_records) != 1:
            return None
        (target,) = test_records[0]["args"]["test_envs"]
        scores: dict[int, float | None] = {}
        for record in records:
            targets = record["args"]["test_envs"]
            if len(targets) == 2 and target in targets:
                source = targets[1 - targets.index(target)]
                scores[source] = record.get(f"env{source}_in_acc")
        wanted = [scores.get(i) for i in known if i != target]
        val_accs = [score for score in wanted if score is not None]
        test_acc = cls.reported_acc(test_records[0])
        if not val_accs or len(val_accs) < len(wanted) or test_acc is None:
            return None
        return {"val_acc": _mean(val_accs), "test_acc": test_acc}


@METHODS.register("oracle")
class OracleSelectionMethod(SelectionMethod):
    """The last step. The accuracy on the target's own out-split decides between hparams seeds.

    With several targets at once, the mean accuracy on their out-splits decides.
    """

    name = "test-domain validation set (oracle)"
    chosen_by = "the accuracy on the target's own out-split at the last step"
    reported = "the accuracy on the target's in-split at that step"
    test_key = "env{}_in_acc"
    selects_on_target = True
    needs = "a run that holds out this target alone, with its accuracies on the in-split and the out-split"

    @classmethod
    def validated(cls, records: Iterable[Record]) -> tuple[int, ...] | None:
        """The target, if its out-split has an accuracy."""
        alone = [(record, record["args"]["test_envs"][0]) for record in get_test_records(Q(records))]
        return tuple({target for record, target in alone if out_acc(target) in record})

    @classmethod
    def run_acc(cls, run_records: Q[Record]) -> RunAcc | None:
        """Accuracies at the largest step, in its last record if the step was recorded more than once."""
        test_records = get_test_records(run_records)
        if not len(test_records):
            return None
        last = test_records.sorted(key=lambda record: record["step"])[-1]
        (target,) = last["args"]["test_envs"]
        val_acc, test_acc = target_validation(last, target), cls.reported_acc(last)
        return None if val_acc is None or test_acc is None else {"val_acc": val_acc, "test_acc": test_acc}


@METHODS.register("autolr")
class IIDAutoLRAccuracySelectionMethod(IIDAccuracySelectionMethod):
    """Like `iid`, but reports the second stage of `train_autolr`, which trains on whole environments."""

    name = "auto lr training-domain validation set"
    reported = "the accuracy on the target's in-split after the stage that trains on whole environments"
    merges_stages = True
    test_key = "fd_env{}_in_acc"
    needs = "both stages of a run of train_autolr that holds out this target alone"


@METHODS.register("iid_nll")
class IIDLossSelectionMethod(IIDAccuracySelectionMethod):
    """The step with the smallest mean validation loss of the sources: their negative log-likelihood.

    A loss still tells steps apart where validation accuracies are equal, and rises with overconfidence.
    """

    name = "training-domain validation set, by loss"
    chosen_by = "the smallest mean validation loss of the sources (out-splits) over all steps"
    validation_key = "env{}_out_nll"
    criterion = METRICS["nll"]
    needs = (
        "a run that holds out this target alone, with its accuracy on in-splits and the negative "
        "log-likelihoods of the sources, which records of earlier versions lack"
    )

    @classmethod
    def over_sources(cls, values: Sequence[float]) -> float:
        """Minus the mean loss."""
        return -_mean(values)


@METHODS.register("iid_worst")
class IIDWorstSourceSelectionMethod(IIDAccuracySelectionMethod):
    """The step with the largest validation accuracy on the worst source environment."""

    name = "training-domain validation set, worst source"
    chosen_by = "the best validation accuracy on the worst source (out-splits) over all steps"

    @classmethod
    def over_sources(cls, values: Sequence[float]) -> float:
        """The smallest accuracy; NaN if there is one."""
        return math.nan if any(map(math.isnan, values)) else min(values)


def _mean(values: Sequence[float]) -> float:
    """Mean of one or more numbers, bit for bit equal to `np.mean`, by which upstream selects.

    NumPy sums fewer than eight numbers one after the other. Doing the same here is faster for short lists.
    """
    if len(values) >= 8:
        return float(np.mean(values))
    total = 0.0
    for value in values:  # not sum(): from Python 3.12 on, it compensates for rounding errors
        total += value
    return total / len(values)


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
