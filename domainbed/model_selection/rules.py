"""The selection methods: upstream's, and those by validation loss and by the worst source."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np

from domainbed.metrics import METRICS
from domainbed.model_selection.method import RunAcc, SelectionMethod, get_test_records
from domainbed.records.environments import environments, out_acc, validated_sources
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.records.target_sets import target_validation
from domainbed.registry import Registry

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
