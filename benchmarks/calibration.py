"""How often a paired report claims what is not so, and what its intervals and its plans are worth.

    python benchmarks/calibration.py [--data_sets 1000] [--seed 0]

Simulated accuracies go through the report's own functions. A study has a baseline, 5 methods, 4 targets of
400 images and 20 trials; between seeds an accuracy has a standard deviation of 2 points. With a split effect,
it also differs from split to split. "Now" is what reports say: corrected tests, exact intervals of the shift.
"Before" is the uncorrected test at 5 %, and the percentile bootstrap interval of the mean. In brackets: 95 %
interval of the simulation. Intervals of fewer than 6 trials are unbounded.

Goals: with own splits, false claims in at most 6 % of the studies in each family; for symmetric differences
and at least 6 trials, intervals that contain the truth in at least 94 %; no row whose p-value and interval
disagree.
"""

import argparse
from collections import Counter

import numpy as np
from scipy.stats import binomtest
from simulated_accuracies import METHODS, NOISE, SKEWED, SYMMETRIC, TARGETS, sample, study
from tqdm import tqdm

from domainbed_gs.report.comparison import compare, compare_all
from domainbed_gs.report.power import smallest_detectable
from domainbed_gs.report.signed_rank import signed_rank_tails
from domainbed_gs.report.statistics import ALPHA
from domainbed_gs.report.verdicts import Verdict

ROPE = 0.01
CLAIMS = (Verdict.BETTER, Verdict.WORSE)
FAMILIES = ("averages", "cells")
SIZES = (6, 10, 20)
PLANNED_TRIALS = (10, 20)
EFFECTS = (0.005, 0.01, 0.02)
RESAMPLES = 2_000
SITUATIONS = {
    "equal methods, own splits": {"split_effect": 1.0},
    "equal methods, one shared split": {"split_effect": 1.0, "shared": True},
    "equal methods, one shared split, a quarter of the effect": {"split_effect": 0.25, "shared": True},
}
SAMPLES = 4
"""Samples of differences for each study. They are cheap, and a percentage point of coverage matters."""

STUDY, SAMPLE, PILOT = 18, 1, 2
"""Relative times, for the estimate of the remaining time."""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_sets", type=int, default=1_000, metavar="N", help="studies of each situation")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("| situation | quantity | now | before | goal |")
    print("|---|---|---:|---:|---:|")
    for row in table(args.data_sets, args.seed):
        print(f"| {' | '.join(row)} |", flush=True)


def table(data_sets, seed):
    """Rows of five texts. A bar on stderr shows the remaining time."""
    samples = SAMPLES * data_sets
    kinds = [(name, n) for name in SYMMETRIC + SKEWED for n in SIZES] + [("normal", 3)]
    work = STUDY * data_sets * (len(SITUATIONS) + 1 + len(EFFECTS)) + SAMPLE * samples * len(kinds)
    work += PILOT * data_sets * len(PLANNED_TRIALS)
    generators = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(100))
    total = Counter()
    with tqdm(total=work, bar_format="{l_bar}{bar}| {elapsed} elapsed, about {remaining} left") as bar:
        for name, situation in SITUATIONS.items():
            counts = studies(next(generators), data_sets, bar, **situation)
            yield from claim_rows(counts, data_sets, name, "" if "shared" in situation else "at most 6 %")
            total += counts
        counts = studies(next(generators), data_sets, bar, differences=[ROPE] * len(METHODS))
        yield from equivalence_rows(counts, data_sets)
        total += counts
        for effect in EFFECTS:
            yield from power_rows(power(next(generators), data_sets, bar, effect), effect)
        for distribution, n in kinds:
            counts = coverage(next(generators), samples, n, distribution, bar)
            yield from coverage_rows(counts, distribution, n)
            total += counts
        for n in PLANNED_TRIALS:
            yield plan_row(detectable(next(generators), data_sets, n, bar), n)
    yield from disagreement_rows(total)


def claim_rows(counts, data_sets, situation, goal):
    for family in FAMILIES:
        shares = [percent(counts[family, kind], data_sets) for kind in ("claim", "uncorrected")]
        yield situation, f"false claim among {family}", *shares, goal


def equivalence_rows(counts, data_sets):
    for family in FAMILIES:
        share = percent(counts[family, "equivalent"], data_sets)
        yield "true differences equal to the rope", f"equivalence among {family}", share, "", "at most 6 %"


def power_rows(counts, effect):
    for family in FAMILIES:
        shares = [percent(counts[family, kind], counts[family]) for kind in ("better", "uncorrected")]
        yield f"one method better by {100 * effect:g} points", f"found among {family}", *shares, ""


def coverage_rows(counts, distribution, n):
    """Rows of one distribution of differences."""
    name, of = f"{distribution} differences, {n} trials", counts["samples"]
    goal = "at least 94 %" if distribution in SYMMETRIC and n >= min(SIZES) else ""
    bootstrap = percent(counts["bootstrap"], of)
    yield (
        name,
        "interval contains the shift (before: the mean)",
        percent(counts["shift"], of),
        bootstrap,
        goal,
    )
    if distribution in SKEWED:
        yield name, "interval contains the mean", percent(counts["mean"], of), bootstrap, ""
        for test in ("signed-rank test", "permutation test of the mean"):
            yield name, f"p < 0.05 at mean 0, {test}", percent(counts[test], of), "", ""


def plan_row(true, n):
    low, high = 100 * np.quantile(true, [0.1, 0.9])
    shown = f"{100 * true.mean():.0f} % (80 % of the pilots: {low:.0f} to {high:.0f} %)"
    return f"smallest detectable difference, {n} trials", "true power", shown, "", "80 %"


def disagreement_rows(total):
    before = percent(total["bootstrap contradictions"], total["samples"])
    shown = f"{total['contradictions']} of {total['rows']:,}"
    yield "all rows above", "raw p and 95 % interval disagree", shown, before, "0"
    shown = f"{total['unclaimed']} of {total['verdicts']:,}"
    yield "all rows above", "no claim, but zero outside the simultaneous interval", shown, "", "0"


def percent(count, of):
    """A share in %, with its 95 % Clopper-Pearson interval."""
    low, high = binomtest(count, of).proportion_ci()
    return f"{100 * count / of:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def studies(rng, data_sets, bar, **situation):
    """Counts over studies of a situation (see `study`): those with some claim, and rows that disagree."""
    counts = Counter()
    for _ in range(data_sets):
        report = compare_all(study(rng, **situation), "ERM", rope=ROPE)
        for name, cells in zip(FAMILIES, (report.primary, report.secondary), strict=True):
            counts[name, "claim"] += any(cell.verdict in CLAIMS for cell in cells)
            counts[name, "uncorrected"] += any(cell.comparison.p < ALPHA for cell in cells)
            counts[name, "equivalent"] += any(cell.verdict is Verdict.EQUIVALENT for cell in cells)
            for cell in cells:
                counts["contradictions"] += contradicts(cell.comparison.p, cell.comparison.interval)
                counts["unclaimed"] += (
                    excludes_zero(cell.comparison.simultaneous) and cell.verdict not in CLAIMS
                )
            counts["rows"] += len(cells)
            counts["verdicts"] += len(cells)
        bar.update(STUDY)
    return counts


def power(rng, data_sets, bar, difference):
    """Counts over studies in which the first method is better by `difference` and the others are equal."""
    counts = Counter()
    for _ in range(data_sets):
        accuracies = study(rng, differences=[difference] + [0.0] * (len(METHODS) - 1))
        report = compare_all(accuracies, "ERM", rope=ROPE)
        for name, cells in zip(FAMILIES, (report.primary, report.secondary), strict=True):
            own = [cell for cell in cells if cell.algorithm == METHODS[0]]
            counts[name] += len(own)
            counts[name, "better"] += sum(cell.verdict is Verdict.BETTER for cell in own)
            counts[name, "uncorrected"] += sum(
                cell.comparison.p < ALPHA and cell.comparison.direction > 0 for cell in own
            )
        bar.update(STUDY)
    return counts


def coverage(rng, data_sets, n, distribution, bar):
    """Counts over samples of n differences: what their intervals contain, what tests say of a zero mean.

    The tests are those of skewed differences only. They hold their level for symmetric ones by construction.
    """
    differences, shift, mean = sample(rng, (data_sets, n), distribution)
    counts = Counter(samples=data_sets)
    zeros = np.zeros(n)
    for values, (low, high) in zip(differences, bootstrap_intervals(rng, differences), strict=True):
        row = compare(values, zeros, ROPE)
        counts["shift"] += contains(row.interval, shift)
        counts["mean"] += contains(row.interval, mean)
        counts["bootstrap"] += low <= mean <= high
        counts["bootstrap contradictions"] += contradicts(row.p, (low, high))
        rows = [row]
        if distribution in SKEWED:
            at_zero = compare(values - mean, zeros, ROPE)
            counts["signed-rank test"] += at_zero.p < ALPHA
            counts["permutation test of the mean"] += at_zero.mean_p < ALPHA
            rows.append(at_zero)
        counts["rows"] += len(rows)
        counts["contradictions"] += sum(contradicts(each.p, each.interval) for each in rows)
        bar.update(SAMPLE)
    return counts


def bootstrap_intervals(rng, differences):
    """Percentile bootstrap intervals (data sets, 2) of the mean, as earlier reports had them.

    All data sets share the draws of trials. Each interval is as if it had its own.
    """
    n = differences.shape[1]
    weights = rng.multinomial(n, [1 / n] * n, size=RESAMPLES) / n
    return np.percentile(weights @ differences.T, [2.5, 97.5], axis=0).T


def contains(interval, value):
    """Whether an interval contains a value, up to rounding: both are fractions of whole images."""
    return interval[0] - 1e-12 <= value <= interval[1] + 1e-12


def contradicts(p, interval):
    """Whether a p-value and a 95 % interval disagree about zero."""
    return (p < ALPHA) != excludes_zero(interval)


def excludes_zero(interval):
    low, high = interval
    return not low <= 0 <= high


def detectable(rng, data_sets, n, bar):
    """True power (data sets,) at the difference for which `smallest_detectable` promises 80 %.

    Each pilot study has n normal differences of averages over the targets. The true power of Bonferroni's
    test is simulated on a grid of differences, and interpolated.
    """
    deviation, family = NOISE * np.sqrt(2 / len(TARGETS)), len(METHODS)
    noise = rng.normal(0, deviation, (data_sets, n))
    grid = deviation * np.linspace(0, 8, 33) / np.sqrt(n)
    found = [np.mean([is_found(values + shift, family) for values in noise]) for shift in grid]
    true = []
    for pilot in rng.normal(0, deviation, (data_sets, n)):
        true.append(np.interp(smallest_detectable(pilot, family), grid, found))
        bar.update(PILOT)
    return np.array(true)


def is_found(differences, family):
    """Whether the test, corrected for a family of tests, finds the differences to be above zero."""
    tails = signed_rank_tails(differences)
    return tails.greater < tails.less and family * tails.two_sided < ALPHA


if __name__ == "__main__":
    main()
