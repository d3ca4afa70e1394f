"""The content of a paired comparison: a cell for each dataset, target and method, with its verdict."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev

from domainbed.metrics import ACCURACY, Metric
from domainbed.results.trials import Trial
from domainbed_gs.report.power import smallest_detectable
from domainbed_gs.report.signed_rank import rank_sum, smallest_p
from domainbed_gs.report.statistics import ALPHA

Trials = dict[Trial, float]
"""Trial -> accuracy in [0, 1], or another metric, as in records."""

Interval = tuple[float, float]
"""(low, high); an end that the data do not bound is infinite."""

ROPE = 0.01
"""Default of the largest difference that makes no practical difference: one percentage point."""


class Verdict(enum.Enum):
    """What a comparison bears, by the rule in `domainbed_gs.report.verdicts`."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Comparison:
    """A method compared with the baseline on n shared trials. Numbers are those of records: fractions.

    Attributes:
        differences: (n,) method - baseline in each trial.
        pairs: n.
        difference: their mean, by which tables of accuracies differ; NaN without pairs.
        shift: their Hodges-Lehmann estimate, which the signed-rank test is about; NaN without pairs.
        interval: exact 95 % interval of the shift: 0 is outside if and only if `p` is below 0.05. None
            without pairs.
        p: two-sided exact signed-rank p-value; None without pairs.
        wins: number of trials in which the method is better than the baseline.
        ties: number of trials in which the two are equal.
        losses: number of trials in which the method is worse.
        probability_better: wins and half the ties, divided by n; None without pairs.
        probability_interval: its 95 % interval; None without pairs.
        mean_p: two-sided p-value of the sign-flip permutation test of the mean; None without pairs.
        equivalence_p: p-value of two one-sided signed-rank tests within the rope; None without pairs.
        simultaneous: exact interval of the shift at the level 1 - 0.05 / family; None without pairs, and
            before families are known.
        sign: 1 if larger values are better, -1 if smaller ones are.
    """

    differences: tuple[float, ...]
    pairs: int
    difference: float
    shift: float
    interval: Interval | None
    p: float | None
    wins: int
    ties: int
    losses: int
    probability_better: float | None
    probability_interval: Interval | None
    mean_p: float | None
    equivalence_p: float | None
    simultaneous: Interval | None = None
    sign: int = 1

    @property
    def gain(self) -> float:
        """Mean difference, positive if the method is better; NaN without pairs."""
        return self.sign * self.difference

    @property
    def untied(self) -> int:
        """Number of trials in which the two differ."""
        return self.wins + self.losses

    @property
    def smallest_p(self) -> float:
        """Smallest p-value possible with this number of untied pairs."""
        return smallest_p(self.untied)

    @property
    def direction(self) -> float:
        """Positive if the signed-rank test speaks for the method, negative if for the baseline."""
        return self.sign * rank_sum(self.differences)


@dataclass(frozen=True)
class Cell:
    """A method on a target.

    Attributes:
        dataset: name of the dataset.
        target: index of the target environment; None for the average over the targets of the report.
        target_name: name of the environment, or "Average".
        algorithm: name of the method.
        trials: accuracies of the method.
        primary: whether it belongs to the primary family: an average, or a dataset's only target.
        comparison: comparison with the baseline on their shared trials; None for the baseline itself.
        family: number of tests in its family; 0 for a cell without a test.
        holm_p: p-value after Holm's correction in the family; None without a test.
        holm_equivalence_p: the same of the equivalence test.
        holm_mean_p: the same of the permutation test of the mean.
        trials_needed: number of untied trials from which on the test can reach 0.05 in this family; None if
            it can with those at hand.
        verdict: what the comparison bears; None without a test.
        left_out: names of the targets that an average is not compared on, because the method or the baseline
            has no results there.
    """

    dataset: str
    target: int | None
    target_name: str
    algorithm: str
    trials: Trials
    primary: bool = True
    comparison: Comparison | None = None
    family: int = 0
    holm_p: float | None = None
    holm_equivalence_p: float | None = None
    holm_mean_p: float | None = None
    trials_needed: int | None = None
    verdict: Verdict | None = None
    left_out: tuple[str, ...] = ()

    @property
    def mean(self) -> float | None:
        """Mean accuracy over the trials; None without trials."""
        return fmean(self.trials.values()) if self.trials else None

    @property
    def std(self) -> float | None:
        """Standard deviation over the trials (ddof=1); None with fewer than two trials."""
        return stdev(self.trials.values()) if len(self.trials) > 1 else None

    @cached_property
    def smallest_detectable(self) -> float | None:
        """Smallest difference that would be found in 80 % of such experiments (see `power`).

        None without a test, and if no difference would be found. Computed on first use, because it takes
        longer than the rest of the cell.
        """
        if self.comparison is None or not self.family:
            return None
        return smallest_detectable(self.comparison.differences, self.family)

    @property
    def significant(self) -> bool:
        """Whether the corrected p-value is below `ALPHA`, that is, whether the method is better or worse."""
        return self.holm_p is not None and self.holm_p < ALPHA


@dataclass(frozen=True)
class PairedReport:
    """All cells, ordered by dataset, target (average last) and method (baseline first).

    Attributes:
        baseline: name of the baseline.
        cells: the cells.
        rope: the largest difference that makes no practical difference, as in records: a fraction.
        correction: "holm", or "none" if every test is a family of its own.
        splits: "own" if each trial has its own split of the data, "shared" if trials share one,
            "repeated" if some do, or "unknown".
        metric: what `trials` are.
        over_targets: how results on several targets become one, one of `OVER_TARGETS`.
    """

    baseline: str
    cells: tuple[Cell, ...]
    rope: float = ROPE
    correction: str = "holm"
    splits: str = "unknown"
    metric: Metric = ACCURACY
    over_targets: str = "mean"

    @property
    def rope_text(self) -> str:
        """The rope with its unit: "1 point"."""
        number = f"{round(self.metric.scale * self.rope, 12):g}"
        return (
            f"{number} {'point' if number == '1' and self.metric.unit == '%' else self.metric.short_points}"
        )

    @property
    def datasets(self) -> list[str]:
        """Names of the datasets, in the order of the tables."""
        return list(dict.fromkeys(cell.dataset for cell in self.cells))

    @property
    def primary(self) -> list[Cell]:
        """Comparisons of the primary family: averages over targets, or the only target of a dataset.

        One without shared trials is among them, without a verdict.
        """
        return [cell for cell in self._compared() if cell.primary]

    @property
    def secondary(self) -> list[Cell]:
        """Comparisons on single targets of datasets with several."""
        return [cell for cell in self._compared() if not cell.primary]

    def of(self, dataset: str) -> list[Cell]:
        """Cells of one dataset."""
        return [cell for cell in self.cells if cell.dataset == dataset]

    def _compared(self) -> Iterator[Cell]:
        return (cell for cell in self.cells if cell.comparison is not None)
