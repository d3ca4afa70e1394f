"""What is said about missing trials, false pairs and numbers of pairs."""

from __future__ import annotations

from domainbed.model_selection import METHODS
from domainbed.records.query import Q
from domainbed.results.accuracies import compute
from domainbed.sweep.manifest import Manifest
from domainbed_gs.report.cautions import notes
from domainbed_gs.report.comparison import compare_all

BETTER = [0.51, 0.52, 0.53, 0.54, 0.55, 0.56]


def notes_on(records, manifest=None):
    return notes(compare_all(compute(records, METHODS["iccv2021"]), "ERM"), records, manifest)


def job(algorithm, target, trial, dataset="EmojiStyles"):
    return {"dataset": dataset, "algorithm": algorithm, "test_envs": [target], "trial_seed": trial}


def test_nothing_to_say_about_complete_paired_trials(sweep):
    records = sweep({"ERM": {0: [0.5] * 6}, "AgrSum": {0: BETTER}})
    jobs = {f"{a}{t}": job(a, 0, t) for a in ("ERM", "AgrSum") for t in range(6)}
    assert notes_on(records, Manifest(jobs)) == []


def test_five_pairs_and_ties_are_too_few(sweep):
    five = sweep({"ERM": {0: [0.5] * 5}, "AgrSum": {0: BETTER[:5]}})
    (note,) = (note for note in notes_on(five) if "never" in note)
    assert "5 pairs (1 of 1 tests)" in note
    assert "smallest possible p is 0.0625. 6 pairs" in note
    tied = sweep({"ERM": {0: [0.5] * 6}, "AgrSum": {0: [0.5, 0.5, *BETTER[:4]]}})
    (note,) = (note for note in notes_on(tied) if "never" in note)
    assert "6 pairs, 2 of them tied" in note
    assert "smallest possible p is 0.125." in note


def test_holm_may_need_more_pairs_than_the_test(sweep):
    records = sweep({"ERM": {0: [0.5] * 6, 1: [0.5] * 6}, "AgrSum": {0: BETTER, 1: BETTER}})
    assert notes_on(records) == [
        "Holm p cannot be below 0.0625 in a family of 2 with these pairs; 7 pairs would be enough for 0.05."
    ]


def test_a_line_for_each_method_and_target_that_lacks_trials(sweep):
    more = [*BETTER, 0.57, 0.58]
    erm = {0: [0.5] * 8, 1: [None, *[0.5] * 7]}
    agr = {0: [None, more[1], None, *more[3:]], 1: more}
    missing = [note for note in notes_on(sweep({"ERM": erm, "AgrSum": agr})) if "lacks" in note]
    assert missing == [
        "EmojiStyles, target Flat: AgrSum lacks trials 0, 2; compared with ERM on 6 shared trials.",
        "EmojiStyles, target Gradient: ERM lacks trial 0; no method is compared there.",
    ]


def test_trials_that_were_launched_and_gave_nothing_are_missing(sweep):
    records = sweep({"ERM": {0: [0.5] * 6}, "AgrSum": {0: BETTER}})
    jobs = [job("ERM", 0, 6), job("PCGrad", 0, 0), job("ERM", 3, 0), job("ERM", 0, 0, dataset="Debug28")]
    said = notes_on(records, Manifest({str(i): each for i, each in enumerate(jobs)}))
    assert said == [
        "Debug28: no results.",
        "EmojiStyles: no results of PCGrad.",
        "EmojiStyles: no results for target environment 3.",
        "EmojiStyles, target Flat: ERM lacks trial 6; no method is compared there.",
        "EmojiStyles, target Flat: AgrSum lacks trial 6; compared with ERM on 6 shared trials.",
    ]


def test_seeds_that_depend_on_the_method_are_false_pairs(sweep):
    erm = sweep({"ERM": {0: [0.5] * 6}})
    records = Q([*erm, *sweep({"AgrSum": {0: BETTER}}, seed=999), *sweep({"PCGrad": {0: BETTER}})])
    (note,) = (note for note in notes_on(records) if "seed" in note)
    assert note.startswith("Other seed than ERM in the same trial: AgrSum in 6 of 6 runs; initialisation and")
    assert "`sweep launch --seed_scheme paired`" in note


def test_other_splits_mean_other_samples(sweep):
    erm = sweep({"ERM": {0: [0.5] * 6}})
    for other in ({"splits": "70/10/20:per_trial"}, {"holdout_fraction": 0.3}):
        (note,) = notes_on(Q([*erm, *sweep({"AgrSum": {0: BETTER}}, **other)]))
        assert note.startswith("Other splits than ERM in the same trial: AgrSum in 6 of 6 runs;")


def test_a_run_that_stopped_early_is_named(sweep):
    records = [*sweep({"ERM": {0: [0.5] * 6}, "AgrSum": {0: [None, *BETTER[1:]]}})]
    records += sweep({"AgrSum": {0: BETTER[:1]}}, step=40)
    (note,) = notes_on(Q(records))
    assert note.startswith("Other last step than ERM in the same trial: AgrSum in 1 of 6 runs;")


def test_a_wider_search_is_named(sweep):
    records = sweep({"ERM": {0: [0.5] * 6}, "AgrSum": {0: BETTER}})
    wider = sweep({"AgrSum": {0: [None, 0.57, 0.58]}}, hparams_seed=3)
    (note,) = notes_on(Q([*records, *wider]))
    assert note.startswith("Selected among other hparams seeds than ERM: AgrSum in 2 of 6 trials;")
