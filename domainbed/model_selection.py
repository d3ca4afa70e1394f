"""Selection methods: which hyper-parameters, and which step, a sweep's result is read from (API spec 9).

A method is a class registered in `METHODS` under a short name; a plugin adds its own there.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from domainbed.records.jsonl import Record, by_run
from domainbed.records.query import Q
from domainbed.registry import Registry

RunAcc = dict[str, float]
"""`{"val_acc": what selection maximises, "test_acc": what it reports}`, both in [0, 1]."""


def get_test_records(records: Q[Record]) -> Q[Record]:
    """Records of runs with exactly one target environment."""
    return Q([record for record in records if len(record["args"]["test_envs"]) == 1])


class SelectionMethod:
    """A rule that reads one accuracy from the records of a (trial, dataset, algorithm, target) group.

    Never instantiated; a subclass says `name` and `run_acc`.

    Attributes:
        name: the method in words, as tables show it.
        chosen_by: what decides between hyper-parameters, and between steps; empty: its name says it.
        reported: what `test_acc` is.
        merges_stages: whether the records of a run are to be merged into one first (two-stage runs of
            `train_autolr`, CLI spec 9.3).
    """

    name: ClassVar[str]
    chosen_by: ClassVar[str] = ""
    reported: ClassVar[str] = "the accuracy on the target"
    merges_stages: ClassVar[bool] = False

    def __init__(self) -> None:
        raise TypeError(f"{type(self).__name__} is used as a class, without an instance")

    @classmethod
    def about(cls) -> str:
        """What is selected by what, and what is shown, as the beginning of a sentence."""
        return f"Selected by {cls.chosen_by or cls.name}; shown is {cls.reported}"

    @classmethod
    def run_acc(cls, run_records: Q[Record]) -> RunAcc | None:
        """Accuracies of the records of one hparams seed at the step that the rule picks; None if it can't."""
        raise NotImplementedError

    @classmethod
    def hparams_accs(cls, records: Q[Record]) -> list[tuple[RunAcc, Q[Record]]]:
        """(accuracies, records) of each hparams seed that has a result, best `val_acc` first.

        Among equals the largest hparams seed comes first, as upstream has it; NaN comes last.
        """
        of_seeds: dict[int, list[Record]] = {}
        for args, of_run in by_run(records):
            of_seeds.setdefault(args["hparams_seed"], []).extend(of_run)
        accs = [(cls.run_acc(Q(of_seeds[seed])), Q(of_seeds[seed])) for seed in sorted(of_seeds)]
        chosen = Q([(acc, run_records) for acc, run_records in accs if acc is not None])
        return chosen.sorted(key=lambda pair: pair[0]["val_acc"])[::-1]

    @classmethod
    def sweep_acc(cls, records: Q[Record]) -> float | None:
        """`test_acc` of the best hparams seed; None if there is none."""
        accs = cls.hparams_accs(records)
        return accs[0][0]["test_acc"] if accs else None


METHODS: Registry[type[SelectionMethod]] = Registry("Selection method")

UPSTREAM = ("iid", "loo", "oracle")
"""What upstream reports, in its order."""


@METHODS.register("iid")
class IIDAccuracySelectionMethod(SelectionMethod):
    """The step with the largest mean accuracy on the out-splits of the source environments."""

    name = "training-domain validation set"
    chosen_by = "the best step's mean accuracy on the validation (out) splits of the sources"
    reported = "the accuracy on the target's in-split at that step"

    _test_key: ClassVar[str] = "env{}_in_acc"

    @classmethod
    def run_acc(cls, run_records: Q[Record]) -> RunAcc | None:
        """The first such step; steps without the accuracy of the target are passed over."""
        accs = [cls._step_acc(record) for record in get_test_records(run_records)]
        complete = [acc for acc in accs if acc is not None]
        return Q(complete).argmax("val_acc") if complete else None

    @classmethod
    def _step_acc(cls, record: Record) -> RunAcc | None:
        (target,) = record["args"]["test_envs"]
        test_acc = record.get(cls._test_key.format(target))
        if test_acc is None:
            return None
        val_accs = [record[_out_acc(i)] for i in range(_environments(record)) if i != target]
        return {"val_acc": _mean(val_accs) if val_accs else float("nan"), "test_acc": test_acc}


@METHODS.register("loo")
class LeaveOneOutSelectionMethod(SelectionMethod):
    """The step that does best on each source environment when that one is held out of training too.

    It needs runs with two targets, {target, source}, for every source (Gulrajani and Lopez-Paz 2021,
    leave-one-domain-out cross-validation).
    """

    name = "leave-one-domain-out cross-validation"
    chosen_by = "the best step's mean accuracy on each source when that one is held out of training too"
    reported = "the accuracy on the target's in-split at that step"

    @classmethod
    def run_acc(cls, run_records: Q[Record]) -> RunAcc | None:
        """The first such step among those for which all runs have a record."""
        accs = [cls._step_acc(records) for _, records in run_records.group("step")]
        complete = [acc for acc in accs if acc is not None]
        return Q(complete).argmax("val_acc") if complete else None

    @classmethod
    def _step_acc(cls, records: Q[Record]) -> RunAcc | None:
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
        wanted = [scores.get(i) for i in range(_environments(records[0])) if i != target]
        val_accs = [score for score in wanted if score is not None]
        test_acc = test_records[0].get(f"env{target}_in_acc")
        if not val_accs or len(val_accs) < len(wanted) or test_acc is None:
            return None
        return {"val_acc": _mean(val_accs), "test_acc": test_acc}


@METHODS.register("oracle")
class OracleSelectionMethod(SelectionMethod):
    """The last step, by the accuracy on the target's own out-split: no early stopping."""

    name = "test-domain validation set (oracle)"
    chosen_by = "the last step's accuracy on the target's own out-split"
    reported = "the accuracy on its in-split at that step"

    @classmethod
    def run_acc(cls, run_records: Q[Record]) -> RunAcc | None:
        """The record with the largest step, the last one if steps repeat."""
        test_records = get_test_records(run_records)
        if not len(test_records):
            return None
        last = test_records.sorted(key=lambda record: record["step"])[-1]
        (target,) = last["args"]["test_envs"]
        val_acc, test_acc = last.get(f"env{target}_out_acc"), last.get(f"env{target}_in_acc")
        return None if val_acc is None or test_acc is None else {"val_acc": val_acc, "test_acc": test_acc}


@METHODS.register("autolr")
class IIDAutoLRAccuracySelectionMethod(IIDAccuracySelectionMethod):
    """As `iid`, but reports the second stage of `train_autolr`, which trains on the whole environments."""

    name = "auto lr training-domain validation set"
    reported = "the accuracy on the target's in-split after the stage that trains on whole environments"
    merges_stages = True

    _test_key = "fd_env{}_in_acc"


def _mean(values: Sequence[float]) -> float:
    """Mean of one or more numbers, to the last bit that of `np.mean`, which upstream selects by.

    NumPy adds eight and more numbers pairwise, and fewer one after the other; sweeps have many means of few.
    """
    if len(values) >= 8:
        return float(np.mean(values))
    total = 0.0
    for value in values:  # not sum(), which is more exact from Python 3.12 on
        total += value
    return total / len(values)


def _environments(record: Record) -> int:
    """Number of environments that `record` knows of: consecutive ones that have an out-split's accuracy.

    A target counts without it: a run need not evaluate what no selection looks at.
    """
    targets = record["args"]["test_envs"]
    count = 0
    while _out_acc(count) in record or count in targets:
        count += 1
    return count


@functools.cache
def _out_acc(environment: int) -> str:
    return f"env{environment}_out_acc"
