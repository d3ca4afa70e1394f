"""Cautions about missing trials, false pairs and small numbers of pairs."""

from __future__ import annotations

from domainbed.model_selection import METHODS
from domainbed.records.query import Q
from domainbed.results.accuracies import compute_accuracies
from domainbed.sweep.manifest import Manifest
from domainbed_gs.report.cautions import cautions
from domainbed_gs.report.comparison import compare_all

BETTER = [0.51, 0.52, 0.53, 0.54, 0.55, 0.56]


def cautions_on(records, manifest=None):
    return cautions(compare_all(compute_accuracies(records, METHODS["iccv2021"]), "ERM"), records, manifest)


def job(algorithm, target, trial, dataset="EmojiStyles"):
    seeds = {"trial_seed": trial, "hparams_seed": 0, "seed": 0}
    return {"dataset": dataset, "algorithm": algorithm, "test_envs": [target], **seeds}


def test_no_cautions_for_complete_paired_trials(sweep):
    records = sweep({"ERM": {0: [0.5] * 6}, "AgrSum": {0: BETTER}})
    jobs = {f"{a}{t}": job(a, 0, t) for a in ("ERM", "AgrSum") for t in range(6)}
    assert cautions_on(records, Manifest(jobs)) == []


def test_five_pairs_and_ties_are_too_few(sweep):
    five = sweep({"ERM": {0: [0.5] * 5}, "AgrSum": {0: BETTER[:5]}})
    assert cautions_on(five) == [
        "Too few trials for 1 of 1 comparison (averages over targets): with 5 untied trials in a family of "
        "1 test, Holm p cannot be below 0.05, whatever the differences. At least 6 untied trials are needed."
    ]
    tied = sweep({"ERM": {0: [0.5] * 6}, "AgrSum": {0: [0.5, 0.5, *BETTER[:4]]}})
    (note,) = cautions_on(tied)
    assert "with 4 untied trials" in note


def test_a_family_may_need_more_pairs_than_a_single_test(sweep):
    records = sweep({"ERM": {0: [0.5] * 6, 1: [0.5] * 6}, "AgrSum": {0: BETTER, 1: BETTER}})
    assert cautions_on(records) == [
        "Too few trials for 2 of 2 comparisons (single targets): with 6 untied trials in a family of 2 "
        "tests, Holm p cannot be below 0.05, whatever the differences. At least 7 untied trials are needed."
    ]


def test_one_line_for_each_method_and_target_with_missing_trials(sweep):
    more = [*BETTER, 0.57, 0.58]
    erm = {0: [0.5] * 8, 1: [None, *[0.5] * 7]}
    agr = {0: [None, more[1], None, *more[3:]], 1: more}
    missing = [
        note for note in cautions_on(sweep({"ERM": erm, "AgrSum": agr})) if "has no result for trial" in note
    ]
    assert missing == [
        "EmojiStyles, target Flat: AgrSum has no result for trials 0, 2. It is compared with ERM on 6 shared "
        "trials.",
        "EmojiStyles, target Gradient: ERM has no result for trial 0. No method is compared on that trial.",
    ]


def test_launched_trials_without_results_are_missing(sweep):
    records = sweep({"ERM": {0: [0.5] * 6}, "AgrSum": {0: BETTER}})
    jobs = [job("ERM", 0, 6), job("PCGrad", 0, 0), job("ERM", 3, 0), job("ERM", 0, 0, dataset="Debug28")]
    found = cautions_on(records, Manifest({str(i): each for i, each in enumerate(jobs)}))
    assert found == [
        "Debug28: no results.",
        "EmojiStyles: no results for PCGrad.",
        "EmojiStyles: no results for target environment 3.",
        "EmojiStyles, target Flat: ERM has no result for trial 6. No method is compared on that trial.",
        "EmojiStyles, target Flat: AgrSum has no result for trial 6. It is compared with ERM on 6 shared "
        "trials.",
    ]


def test_different_seeds_of_methods_weaken_the_pairs(sweep):
    erm = sweep({"ERM": {0: [0.5] * 6}})
    records = Q([*erm, *sweep({"AgrSum": {0: BETTER}}, seed=999), *sweep({"PCGrad": {0: BETTER}})])
    (note,) = (note for note in cautions_on(records) if "seed" in note)
    assert note.startswith(
        "Different seed from ERM in the same trial: AgrSum in 6 of 6 runs. Initial weights"
    )
    assert "`sweep launch --seed_scheme paired`" in note


def test_different_splits_are_reported(sweep):
    erm = sweep({"ERM": {0: [0.5] * 6}})
    for other in ({"splits": "70/10/20:per_trial"}, {"holdout_fraction": 0.3}):
        (note,) = cautions_on(Q([*erm, *sweep({"AgrSum": {0: BETTER}}, **other)]))
        assert note.startswith("Different splits from ERM in the same trial: AgrSum in 6 of 6 runs.")


def test_a_run_that_stopped_early_is_reported(sweep):
    records = [*sweep({"ERM": {0: [0.5] * 6}, "AgrSum": {0: [None, *BETTER[1:]]}})]
    records += sweep({"AgrSum": {0: BETTER[:1]}}, step=40)
    (note,) = cautions_on(Q(records))
    assert note.startswith("Different last step from ERM in the same trial: AgrSum in 1 of 6 runs.")


def test_a_wider_search_is_reported(sweep):
    records = sweep({"ERM": {0: [0.5] * 6}, "AgrSum": {0: BETTER}})
    wider = sweep({"AgrSum": {0: [None, 0.57, 0.58]}}, hparams_seed=3)
    (note,) = cautions_on(Q([*records, *wider]))
    assert note.startswith(
        "Hyper-parameters selected from different hparams seeds than those of ERM: AgrSum in 2 of 6 trials."
    )
