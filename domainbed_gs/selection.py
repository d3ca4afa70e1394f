"""Selection methods of the ICCV 2021 protocol (arXiv 2108.01621): validation on sources, test on the target.

They read runs whose environments are split into train, validation and test. In a record `env{i}_out_acc` is
the validation accuracy and `env{i}_test_acc` the test accuracy of environment i, and `sizes` has the number
of validation samples as `env{i}_out`.
"""

from __future__ import annotations

import math

import numpy as np

from domainbed.model_selection import RunAcc, SelectionMethod, get_test_records
from domainbed.records.environments import out_acc, validated_sources
from domainbed.records.query import Q
from domainbed.records.results_file import Record


class ICCV2021SelectionMethod(SelectionMethod):
    """The step with the largest validation accuracy, pooled over samples of all sources (micro average)."""

    name = "source validation set (micro average over samples), tested on the target's test split"
    chosen_by = "the best validation accuracy over all steps, pooled over the samples of the sources"
    reported = "the accuracy on the target's test split at that step"
    test_key = "env{}_test_acc"
    needs = "a run that holds out this target alone, with its accuracy on test splits (--splits 70/10/20)"

    @classmethod
    def run_acc(cls, run_records: Q[Record]) -> RunAcc | None:
        """Accuracies at the selected step, among records with exactly one target.

        Sources without a validation accuracy in any record are left out. Steps that lack that of another
        source are skipped. None if no record has a validation accuracy, or if the selected one has no test
        accuracy.
        """
        records = list(get_test_records(run_records).sorted(lambda record: record["step"]))
        sources = validated_sources(records)
        # max returns the first of equal records, so ties keep the earliest step, as in the authors' code.
        chosen = max(cls._candidates(records, sources), key=lambda pair: pair[0], default=None)
        if chosen is None:
            return None
        test_acc = cls.reported_acc(chosen[1])
        return None if test_acc is None else {"val_acc": chosen[0], "test_acc": test_acc}

    @classmethod
    def _candidates(cls, records: list[Record], sources: tuple[int, ...]) -> list[tuple[float, Record]]:
        """(validation accuracy, record) of the steps to choose from, in order."""
        pairs = [(cls._val_acc(record, sources), record) for record in records]
        return [pair for pair in pairs if not math.isnan(pair[0])]

    @classmethod
    def _val_acc(cls, record: Record, sources: tuple[int, ...]) -> float:
        """Validation accuracy over the sources, in [0, 1]; NaN if the record lacks an accuracy or a size."""
        accuracies = [record.get(out_acc(i), math.nan) for i in sources]
        weights = cls._weights(record, sources)
        return float(np.average(accuracies, weights=weights)) if all(weights) and weights else math.nan

    @staticmethod
    def _weights(record: Record, sources: tuple[int, ...]) -> list[float]:
        """The weight of each source; 0 if it is not recorded."""
        return [record.get("sizes", {}).get(f"env{i}_out", 0) for i in sources]


class ICCV2021MacroSelectionMethod(ICCV2021SelectionMethod):
    """The step with the largest mean of the sources' validation accuracies (macro average)."""

    name = "source validation set (macro average over environments), tested on the target's test split"
    chosen_by = "the best mean validation accuracy of the sources over all steps"

    @staticmethod
    def _weights(record: Record, sources: tuple[int, ...]) -> list[float]:
        return [1.0] * len(sources)


class LastSelectionMethod(ICCV2021SelectionMethod):
    """The last step, as in the authors' code. Validation accuracy decides between hparams seeds."""

    name = "last step, tested on the target's test split"
    chosen_by = "the validation accuracy at the last step, pooled over the samples of the sources"

    @classmethod
    def _candidates(cls, records: list[Record], sources: tuple[int, ...]) -> list[tuple[float, Record]]:
        return [(cls._val_acc(record, sources), record) for record in records[-1:]]


class PooledSelectionMethod(ICCV2021SelectionMethod):
    """The step of `ICCV2021SelectionMethod`, for upstream's splits: the target's in-split is reported."""

    name = "training-domain validation set, pooled over its images"
    reported = "the accuracy on the target's in-split at that step"
    test_key = "env{}_in_acc"
    needs = "a run that holds out this target alone, with its accuracy on in-splits"
