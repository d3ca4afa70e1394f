"""Whether the trials of a sweep share one split of the data, and what that means for its p-values."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.records.target_sets import shown_records
from domainbed.results.experiments import pool
from domainbed.training.config import SETTINGS
from domainbed.training.run_settings import Kinds, runs_of
from domainbed.training.splits import varies_by_trial


@dataclass(frozen=True)
class TrialSplits:
    """How the data of the trials were split.

    Attributes:
        kind: "own" if each trial has its own split, "shared" if trials share one, "repeated" if those share
            one that differ in `--seed` only, or "unknown".
        schemes: values of `--splits` to which `kind` is due.
    """

    kind: str
    schemes: tuple[str, ...]

    def sentence(self) -> str:
        """What `kind` means for p-values, intervals and verdicts."""
        schemes = ", ".join(self.schemes)
        if self.kind == "shared":
            return (
                f"All trials share one split of the data (--splits {schemes}). p-values, intervals and "
                "verdicts hold for this split only: seeds repeat training, they do not sample the data. A "
                "claim beyond it needs a split for each trial, such as --splits 70/10/20:per_trial."
            )
        if self.kind == "repeated":
            return (
                "Trials that differ in --seed only share a split of the data, while p-values, intervals and "
                "verdicts take trials for independent: they are too narrow for a claim beyond these splits. "
                "Such a claim needs a split for each trial, that is, other values of --trial_seed."
            )
        if self.kind == "own":
            return f"Each trial has its own split of the data (--splits {schemes})."
        return (
            f"Whether trials share a split of the data is unknown, because the split scheme {schemes} does "
            "not declare it. If they do, p-values, intervals and verdicts hold for that split only."
        )


def split_settings(record: Record) -> dict[str, object]:
    """What determines the splits of a run, except the trial seed: arguments, and the rule for copies."""
    (run,) = runs_of([record])
    kinds = Kinds()
    return {name: kinds.value(name, run) for name in ("splits", "holdout_fraction", "data.copies.split")}


def trial_splits(records: Q[Record]) -> TrialSplits:
    """How the trials of the runs were split that have one target, or a set of targets.

    By the split scheme's declaration. Trials of one dataset that ran with different values of `--splits`,
    such as one split file each, do not share a split either.
    """
    trials: dict[tuple[str, str], set[int]] = defaultdict(set)
    all_trials: dict[str, set[int]] = defaultdict(set)
    for record in shown_records(records):
        args = record["args"]
        splits = args.get("splits", SETTINGS["splits"].default)
        trials[args["dataset"], splits].add(args["trial_seed"])
        all_trials[args["dataset"]].add(args["trial_seed"])
    kinds: dict[str, set[str]] = {"shared": set(), "unknown": set(), "own": set()}
    for (dataset, splits), seeds in trials.items():
        varies = varies_by_trial(splits)
        alone = len(seeds) == 1 < len(all_trials[dataset])
        kind = "own" if varies or alone else "unknown" if varies is None else "shared"
        kinds[kind].add(splits)
    found = next((kind for kind, schemes in kinds.items() if schemes), "unknown")
    repeated = {(method.dataset, seed) for method in pool(records) for seed in method.repeated}
    schemes = tuple(sorted(kinds[found]))
    return TrialSplits("repeated" if repeated and found == "own" else found, schemes)
