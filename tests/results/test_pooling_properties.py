"""Random sweep directories: each number equals one that is computed here from what the rule says alone."""

import contextlib
import csv
import io
import json
import tempfile
from pathlib import Path
from statistics import fmean

from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed.scripts import collect_results

STEPS = 301
"""The number of steps of EmojiStyles, which a run has that gives none."""

OTHER_DESIGNS = [{"steps": 500}, {"precision": "bf16"}, {"freeze_bn": True}, {"checksum": "b"}]

RUNS = st.lists(
    st.fixed_dictionaries(
        {
            # what tells cells apart
            "algorithm": st.sampled_from(["ERM", "IRM"]),
            "target": st.sampled_from([0, 1]),
            "trial_seed": st.sampled_from([0, 1]),
            # searched
            "hparams_seed": st.sampled_from([0, 1]),
            "lr": st.sampled_from([0.1, 0.01]),
            # the seed
            "seed": st.sampled_from([0, 1, 2]),
            # incidental
            "skip_model_save": st.booleans(),
            "layout": st.sampled_from(["auto", "plain"]),
            # design: values that mean the same, and at times another one
            "steps": st.sampled_from([None, STEPS]),
            "precision": st.sampled_from(["absent", "fp32"]),
            "freeze_bn": st.just(False),
            "checksum": st.sampled_from(["absent", "a"]),
        }
    ).flatmap(lambda run: st.sampled_from([{}] * 30 + OTHER_DESIGNS).map(lambda other: run | other)),
    min_size=1,
    max_size=12,
)


def write(folder, runs):
    """Run i has validation accuracy (i + 1) %, so that none ties, and twice that on the target."""
    for i, run in enumerate(runs):
        args = {name: run[name] for name in ("algorithm", "trial_seed", "hparams_seed", "seed", "steps")}
        args |= {"dataset": "EmojiStyles", "test_envs": [run["target"]], "output_dir": f"{i:02d}"}
        args |= {"skip_model_save": run["skip_model_save"]}
        args |= {} if run["precision"] == "absent" else {"precision": run["precision"]}
        hparams = {name: run[name] for name in ("lr", "layout", "freeze_bn")}
        record = {"step": 300, "args": args, "hparams": hparams}
        record |= {} if run["checksum"] == "absent" else {"data": {"checksum": run["checksum"], "version": 1}}
        record |= {f"env{j}_out_acc": (i + 1) / 100 for j in range(4)}
        record[f"env{run['target']}_in_acc"] = 2 * (i + 1) / 100
        path = folder / f"{i:02d}"
        path.mkdir()
        (path / "results.jsonl").write_text(json.dumps(record) + "\n")
        (path / "done").touch()


def expected_cells(runs):
    """(algorithm, target) -> mean over trials of the accuracy on the target, in %, and number of trials."""
    runs = [run | {"number": i + 1} for i, run in enumerate(runs)]
    if len({run["checksum"] for run in runs} - {"absent"}) > 1:
        return {}
    designs = {}
    for run in runs:
        precision = "fp32" if run["precision"] == "absent" else run["precision"]
        design = run["steps"] or STEPS, precision, run["freeze_bn"]
        designs.setdefault(run["algorithm"], set()).add(design)
    runs = [run for run in runs if len(designs[run["algorithm"]]) == 1]

    def slot(run):
        return tuple(run[name] for name in ("algorithm", "target", "trial_seed", "hparams_seed", "lr"))

    seeds = {}
    for run in runs:
        seeds.setdefault(slot(run), set()).add(run["seed"])

    def repetition(run):
        of_trial = [own for key, own in seeds.items() if key[2] == run["trial_seed"]]
        shared = set().union(*of_trial)
        order = shared if len(shared) == max(map(len, of_trial)) else seeds[slot(run)]
        return sorted(order).index(run["seed"])

    trials, seen = {}, set()
    for run in runs:
        if (slot(run), run["seed"]) not in seen:  # of equal runs, the first
            seen.add((slot(run), run["seed"]))
            cell = trials.setdefault((run["algorithm"], run["target"]), {})
            trial = run["trial_seed"], repetition(run)
            cell[trial] = max(cell.get(trial, 0), run["number"])  # the best validation accuracy
    return {cell: (2 * fmean(best.values()), len(best)) for cell, best in trials.items()}


@settings(max_examples=40, deadline=None)
@given(RUNS)
def test_a_number_is_made_of_runs_that_differ_in_what_the_rule_allows(runs):
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(io.StringIO()):
        write(Path(name), runs)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            flags = ["--input_dir", name, "--selection", "iid", "--format", "csv"]
            assert collect_results.main(flags) == 0

    rows = csv.DictReader(io.StringIO(out.getvalue()))
    found = {(row["algorithm"], row["environment"]): row for row in rows}
    expected = expected_cells(runs)
    for algorithm in {run["algorithm"] for run in runs}:
        for target, environment in enumerate(("Flat", "Gradient", "Line", "Rendered")):
            row = found[algorithm, environment]
            mean, trials = expected.get((algorithm, target), (None, 0))
            assert int(row["n"]) == trials
            assert row["mean"] == "" if mean is None else abs(float(row["mean"]) - mean) < 1e-9
