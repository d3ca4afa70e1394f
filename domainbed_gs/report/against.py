"""Our accuracies beside published ones: each cell, the difference, and how many standard errors it is."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from domainbed.errors import UsageError
from domainbed.records.jsonl import Record
from domainbed.records.query import Q
from domainbed.results.accuracies import Accuracies, Columns
from domainbed_gs.report.comparison import AVERAGE
from domainbed_gs.report.published import Published, PublishedCell, plain


@dataclass(frozen=True)
class Beside:
    """A method on a target, by us and as published; all in % or percentage points.

    Attributes:
        dataset, target, algorithm: our names.
        accuracies: of our trials, one or more.
        published: the other side.
        trials: number of trials behind it; None where it is not known.
    """

    dataset: str
    target: str
    algorithm: str
    accuracies: tuple[float, ...]
    published: PublishedCell
    trials: int | None

    @property
    def mean(self) -> float:
        """Our mean."""
        return fmean(self.accuracies)

    @property
    def std(self) -> float | None:
        """Our standard deviation over trials (ddof=1); None with fewer than two."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else None

    @property
    def difference(self) -> float:
        """Ours minus the published."""
        return self.mean - self.published.mean

    @property
    def standard_errors(self) -> float | None:
        """The difference in standard errors of a difference of two means; None where one is not known."""
        if self.std is None or self.published.std is None or self.trials is None:
            return None
        error = math.sqrt(self.std**2 / len(self.accuracies) + self.published.std**2 / self.trials)
        return self.difference / error if error > 0 else None


def beside(accuracies: Accuracies, published: Published) -> list[Beside]:
    """Every cell that both sides have, averages over targets last in each dataset.

    A target is the same if its name is, or if the published one is the only of its dataset to begin with the
    published letter.

    Raises: UsageError if there is no such cell.
    """
    found = [cell for columns in accuracies.datasets for cell in _of_dataset(columns, accuracies, published)]
    if not found:
        names = {
            side: sorted({key[i] for key in published.cells}) for i, side in ((0, "datasets"), (2, "methods"))
        }
        listed = "; ".join(f"{side}: {', '.join(own)}" for side, own in names.items())
        raise UsageError(f"--against has no number for any cell of this sweep; it has {listed}")
    return found


def _of_dataset(columns: Columns, accuracies: Accuracies, published: Published) -> Iterator[Beside]:
    name = plain(Path(columns.name).name)
    targets = {target for dataset, target, _ in published.cells if dataset == name}
    sides: list[tuple[str, str, int | None]] = [
        (environment, _target(environment, columns.environments, targets), index)
        for index, environment in enumerate(columns.environments)
    ]
    for environment, target, index in [*sides, (AVERAGE, plain(AVERAGE), None)]:
        for algorithm in accuracies.algorithms:
            cell = published.cells.get((name, target, plain(algorithm)))
            if index is None:
                shares = _averages(accuracies, columns, algorithm)
            else:
                shares = accuracies.trials(columns.name, algorithm, index)
            ours = tuple(100 * share for share in shares if not math.isnan(share))
            if cell is not None and ours:
                yield Beside(columns.name, environment, algorithm, ours, cell, published.trials)


def _averages(accuracies: Accuracies, columns: Columns, algorithm: str) -> list[float]:
    """Means over all targets of the trials that have all."""
    trials = accuracies.by_trial.get((columns.name, algorithm), {}).values()
    return [fmean(shares) for shares in trials if len(shares) == len(columns.environments)]


def _target(environment: str, environments: Sequence[str], published: set[str]) -> str:
    """Which of the published targets an environment is; its own plain name if none."""
    own, initial = plain(environment), plain(environment)[:1]
    alone = sum(plain(each)[:1] == initial for each in environments) == 1
    return initial if own not in published and alone and initial in published else own


def other_settings(records: Q[Record], cells: Sequence[Beside], published: Published) -> list[str]:
    """In what the runs behind `cells` differ from the published ones; a sentence for each setting."""
    shown = {(cell.dataset, cell.algorithm) for cell in cells}
    runs = {}
    for record in records:
        args = record["args"]
        if (args["dataset"], args["algorithm"]) in shown:
            key = (
                args["dataset"],
                args["algorithm"],
                *args["test_envs"],
                args["trial_seed"],
                args["hparams_seed"],
            )
            runs[key] = record
    differ: Counter[tuple[str, str, str]] = Counter()
    for record in runs.values():
        for ours, theirs in (
            (record["args"], published.args),
            (record.get("hparams", {}), published.hparams),
        ):
            for name, value in theirs.items():
                if ours.get(name) != value:
                    differ[name, json.dumps(ours.get(name)), json.dumps(value)] += 1
    return [
        f"{name} is {ours}, published with {theirs} ({number} of {len(runs)} runs)"
        for (name, ours, theirs), number in differ.items()
    ]
