"""Parts of the targets that runs with `--evaluate reported` did not evaluate, and who misses them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.records.sweep_records import by_run
from domainbed.records.target_sets import TARGET_SETS, columns_of
from domainbed.results.accuracies import Accuracies
from domainbed.results.trials import Trial


def note_on_unrecorded_parts(accuracies: Mapping[str, Accuracies], records: Q[Record]) -> list[str]:
    """One note that names the parts, and the selection methods without a result in such a run; else none.

    Args:
        accuracies: results by the short name of their selection method.
        records: the records that the accuracies were computed from.
    """
    cells, parts = set(), set()
    for args, (first, *_) in by_run(records):
        if args.get("evaluate") == "reported":
            run = args["dataset"], args["algorithm"], Trial(args["trial_seed"])
            cells |= {(*run, target) for target in columns_of(args["test_envs"], first.get(TARGET_SETS, ()))}
            parts |= unrecorded_parts(args, first)
    lacking = [name for name, results in accuracies.items() if _lacks_a_result(results, cells)]
    if not parts or not lacking:
        return []
    return [
        f"runs with --evaluate reported lack accuracies on the target's part {' and '.join(sorted(parts))}, "
        f"so selection methods have no result from them: {', '.join(lacking)}; train with --evaluate "
        "selection, or choose others with --selection"
    ]


def unrecorded_parts(args: Mapping[str, Any], record: Record) -> set[str]:
    """Kinds of parts, such as "in", that the targets of a run have and its `record` has no accuracy for."""
    kinds = {
        (target, name.removeprefix(f"env{target}_"))
        for target in args["test_envs"]
        for name in record.get("sizes", {})
        if name.startswith(f"env{target}_")
    }
    return {kind for target, kind in kinds if f"env{target}_{kind}_acc" not in record and kind != "uda"}


def _lacks_a_result(results: Accuracies, cells: Iterable[tuple[str, str, Trial, int]]) -> bool:
    return any(
        trial not in results.by_target.get((dataset, algorithm, target), {})
        for dataset, algorithm, trial, target in cells
    )
