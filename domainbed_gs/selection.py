"""The paper's selection: the best step on the sources' validation splits, tested on the target's test split.

For runs with splits into train, validation and test (arXiv 2108.01621; spec: gradient-surgery.md A.6,
A.8 rows 1 and 7). In a record `env{i}_out_acc` is the validation and `env{i}_test_acc` the test accuracy of
environment i, and `sizes` has the numbers of samples, as "env{i}_out".
"""

from __future__ import annotations

import math
import re

import numpy as np

from domainbed.model_selection import RunAcc, SelectionMethod, get_test_records
from domainbed.records.jsonl import Record
from domainbed.records.query import Q

_OUT_ACC = re.compile(r"env(\d+)_out_acc")


class ICCV2021SelectionMethod(SelectionMethod):
    """The step with the best validation accuracy, pooled over the samples of all sources (micro average)."""

    name = "source validation set (micro average over samples), tested on the target's test split"
    chosen_by = "the best step's validation accuracy, pooled over the samples of the sources"
    reported = "the accuracy on the target's test split at that step"

    @classmethod
    def run_acc(cls, run_records: Q[Record]) -> RunAcc | None:
        """`val_acc` and `test_acc` at the chosen step of one run, among records with exactly one target.

        None where no record has a validation accuracy, or the chosen one has no test accuracy.
        """
        records = list(get_test_records(run_records).sorted(lambda record: record["step"]))
        chosen = cls._choose(records)
        if chosen is None:
            return None
        test_acc = chosen.get(f"env{chosen['args']['test_envs'][0]}_test_acc")
        return None if test_acc is None else {"val_acc": cls._val_acc(chosen), "test_acc": test_acc}

    @classmethod
    def _choose(cls, records: list[Record]) -> Record | None:
        validated = [record for record in records if not math.isnan(cls._val_acc(record))]
        # max takes the first of equals: ties keep the earliest step, as the authors' strict ">" does.
        return max(validated, key=cls._val_acc, default=None)

    @staticmethod
    def _val_acc(record: Record) -> float:
        """Validation accuracy over the sources in [0, 1]; nan where the record does not have it."""
        accuracies = _validation(record)
        sizes = [record.get("sizes", {}).get(f"env{i}_out", 0) for i in accuracies]
        return (
            float(np.average(list(accuracies.values()), weights=sizes)) if all(sizes) and sizes else math.nan
        )


class ICCV2021MacroSelectionMethod(ICCV2021SelectionMethod):
    """The step with the best mean of the sources' validation accuracies (macro average)."""

    name = "source validation set (macro average over environments), tested on the target's test split"
    chosen_by = "the best step's mean of the sources' validation accuracies"

    @staticmethod
    def _val_acc(record: Record) -> float:
        accuracies = _validation(record)
        return float(np.mean(list(accuracies.values()))) if accuracies else math.nan


class LastSelectionMethod(ICCV2021SelectionMethod):
    """The last step, as the authors' code tests it; between hparams seeds the validation accuracy decides."""

    name = "last step, tested on the target's test split"
    chosen_by = "the last step's validation accuracy, pooled over the samples of the sources"

    @classmethod
    def _choose(cls, records: list[Record]) -> Record | None:
        return records[-1] if records else None


def _validation(record: Record) -> dict[int, float]:
    """Environment -> validation accuracy, for all environments but the target, in order."""
    found = {int(match[1]): record[key] for key in record if (match := _OUT_ACC.fullmatch(key))}
    return {i: found[i] for i in sorted(found) if i not in record["args"]["test_envs"]}
