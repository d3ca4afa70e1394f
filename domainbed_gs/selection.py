"""Selection methods of the ICCV 2021 protocol (arXiv 2108.01621): validation on sources, test on the target.

They read runs whose environments are split into train, validation and test. In a record `env{i}_out_acc` is
the validation accuracy and `env{i}_test_acc` the test accuracy of environment i, and `sizes` has the number
of validation samples as `env{i}_out`.
"""

from __future__ import annotations

import math
import re

import numpy as np

from domainbed.model_selection import RunAcc, SelectionMethod, get_test_records
from domainbed.records.query import Q
from domainbed.records.results_file import Record

_OUT_ACC = re.compile(r"env(\d+)_out_acc")


class ICCV2021SelectionMethod(SelectionMethod):
    """The step with the largest validation accuracy, pooled over samples of all sources (micro average)."""

    name = "source validation set (micro average over samples), tested on the target's test split"
    chosen_by = "the best validation accuracy over all steps, pooled over the samples of the sources"
    reported = "the accuracy on the target's test split at that step"
    test_key = "env{}_test_acc"

    @classmethod
    def run_acc(cls, run_records: Q[Record]) -> RunAcc | None:
        """Accuracies at the selected step, among records with exactly one target.

        None if no record has a validation accuracy, or if the selected one has no test accuracy.
        """
        records = list(get_test_records(run_records).sorted(lambda record: record["step"]))
        chosen = cls._choose(records)
        if chosen is None:
            return None
        test_acc = cls.reported_acc(chosen)
        return None if test_acc is None else {"val_acc": cls._val_acc(chosen), "test_acc": test_acc}

    @classmethod
    def _choose(cls, records: list[Record]) -> Record | None:
        validated = [record for record in records if not math.isnan(cls._val_acc(record))]
        # max returns the first of equal records, so ties keep the earliest step, as in the authors' code.
        return max(validated, key=cls._val_acc, default=None)

    @staticmethod
    def _val_acc(record: Record) -> float:
        """Validation accuracy over the sources, in [0, 1]; NaN if the record lacks an accuracy or a size."""
        accuracies = _validation(record)
        sizes = [record.get("sizes", {}).get(f"env{i}_out", 0) for i in accuracies]
        return (
            float(np.average(list(accuracies.values()), weights=sizes)) if all(sizes) and sizes else math.nan
        )


class ICCV2021MacroSelectionMethod(ICCV2021SelectionMethod):
    """The step with the largest mean of the sources' validation accuracies (macro average)."""

    name = "source validation set (macro average over environments), tested on the target's test split"
    chosen_by = "the best mean validation accuracy of the sources over all steps"

    @staticmethod
    def _val_acc(record: Record) -> float:
        accuracies = _validation(record)
        return float(np.mean(list(accuracies.values()))) if accuracies else math.nan


class LastSelectionMethod(ICCV2021SelectionMethod):
    """The last step, as in the authors' code. Validation accuracy decides between hparams seeds."""

    name = "last step, tested on the target's test split"
    chosen_by = "the validation accuracy at the last step, pooled over the samples of the sources"

    @classmethod
    def _choose(cls, records: list[Record]) -> Record | None:
        return records[-1] if records else None


def _validation(record: Record) -> dict[int, float]:
    """Validation accuracy of each source environment, by its index, in ascending order."""
    found = {int(match[1]): record[key] for key in record if (match := _OUT_ACC.fullmatch(key))}
    return {i: found[i] for i in sorted(found) if i not in record["args"]["test_envs"]}
