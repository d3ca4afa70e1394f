"""`--relaunch_best`: the sweep file holds what the arrays say is best, and `sweep` takes it."""

from __future__ import annotations

import json
import math
import shlex
import tomllib
from dataclasses import replace

import numpy as np
import pytest

from domainbed.errors import RunError
from domainbed.model_selection import METHODS
from domainbed.records.query import Q
from domainbed.results.relaunch import best
from domainbed.results.settings import Setting, candidates, settings
from domainbed.scripts import collect_results, sweep

DEFAULT = {"dataset": "EmojiStyles", "task": "domain_generalization"}


@pytest.fixture
def emoji(tmp_path):
    """`emoji({algorithm: {hparams seed: validation accuracy}}, **args)`: runs on all targets; the sweep."""

    def make(accuracies, **more):
        for algorithm, of_seed in accuracies.items():
            for seed, accuracy in of_seed.items():
                for target in range(4):
                    args = {**DEFAULT, **more, "algorithm": algorithm, "test_envs": [target]}
                    args |= {"trial_seed": 0, "hparams_seed": seed, "splits": "70/10/20", "steps": 21}
                    record = {"step": 20, "args": args, "hparams": {"lr": [0.01, 0.1][seed]}}
                    record |= {f"env{i}_out_acc": accuracy for i in range(4)} | {f"env{target}_in_acc": 0.5}
                    run = tmp_path / "emoji" / f"{algorithm}-{target}-{seed}-{more.get('grouping')}"
                    run.mkdir(parents=True)
                    (run / "results.jsonl").write_text(json.dumps(record) + "\n")
                    (run / "done").write_text("done")
        return tmp_path / "emoji"

    return make


def relaunch(sweep_dir, path, *flags):
    return collect_results.main(["--input_dir", str(sweep_dir), "--relaunch_best", str(path), *flags])


def jobs_of(*flags):
    return [job.train_args for job in sweep.make_jobs(sweep.parse(["launch", *map(str, flags)]))]


def best_seed(vlcs):
    """The hparams seed with the larger validation accuracy, in the mean over trials and targets."""

    def validation(seed, trial, target):
        _, outside = vlcs.runs[trial, (target,), seed]
        return np.mean(np.delete(outside, target, axis=1), axis=1).max()

    cells = [(trial, target) for trial in (0, 1) for target in range(4)]
    return max((0, 1), key=lambda seed: np.mean([validation(seed, *cell) for cell in cells]))


def test_the_best_setting_of_each_algorithm_as_a_sweep_file(vlcs, tmp_path, capsys):
    folder = vlcs.write(tmp_path / "search")
    expected = {"ERM": best_seed(vlcs)}
    vlcs.algorithm = "CORAL"
    vlcs.runs = {key: 1.2 - accuracies for key, accuracies in vlcs.runs.items()}
    vlcs.write(folder)
    expected["CORAL"] = best_seed(vlcs)
    path = tmp_path / "best.toml"
    assert relaunch(folder, path, "--selection", "iid", "oracle") == 0
    assert f"python -m domainbed.scripts.sweep launch --config {path}\n" in capsys.readouterr().err
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    for algorithm, seed in expected.items():
        wanted = {"lr": [5e-05, 0.0001][seed], "batch_size": [32, 17][seed], "resnet18": False}
        assert content["hparams"][algorithm] == wanted
    # Not a word of what is the default.
    assert {*content} == {
        *("output_dir", "n_trials", "n_hparams", "seed_scheme", "selection", "datasets", "algorithms"),
        *("test_envs", "single_test_envs", "steps", "data_dir", "hparams"),
    }
    assert (content["selection"], content["single_test_envs"]) == (["iid"], True)
    assert (content["test_envs"], content["steps"], content["data_dir"]) == ([0, 1, 2, 3], 1001, "/data")
    relaunch(folder, path, "--selection", "loo")
    assert tomllib.loads(path.read_text())["single_test_envs"] is False  # it needs pairs of targets


def test_the_file_makes_the_runs_it_says(emoji, tmp_path):
    folder = emoji({"ERM": {0: 0.5, 1: 0.6}, "AgrSum": {0: 0.7, 1: 0.5}}, grouping="domain")
    relaunch(folder, tmp_path / "best.toml", "--selection", "iid")
    jobs = jobs_of("--config", tmp_path / "best.toml")
    assert len(jobs) == 2 * 4 * 20
    rates = {job["algorithm"]: json.loads(job["hparams"])["lr"] for job in jobs}
    assert rates == {"ERM": 0.1, "AgrSum": 0.01}
    seeds = {(job["trial_seed"], *job["test_envs"], job["seed"]) for job in jobs}
    assert len(seeds) == 4 * 20  # the two algorithms share them
    assert {job["splits"] for job in jobs} == {"70/10/20"}
    assert sweep.parse(["launch", "--config", str(tmp_path / "best.toml")]).output_dir == f"{folder}-best"


def test_datasets_and_conditions_become_presets(emoji, tmp_path, capsys):
    folder = emoji({"AgrSum": {0: 0.7, 1: 0.5}}, grouping="domain")
    emoji({"AgrSum": {0: 0.5, 1: 0.7}}, grouping="pooled")
    path = tmp_path / "best of all.toml"
    relaunch(folder, path, "--selection", "iid")
    lines = [line.strip() for line in capsys.readouterr().err.splitlines() if "scripts.sweep" in line]
    assert all(f"#     {line}\n" in path.read_text() for line in lines)
    found = []
    for line in lines:
        jobs = jobs_of(*shlex.split(line)[4:])
        found += {(job.get("grouping"), json.loads(job["hparams"])["lr"]) for job in jobs}
    assert found == [(None, 0.01), ("pooled", 0.1)]


def test_what_cannot_be_relaunched(emoji, tmp_path):
    folder = emoji({"ERM": {0: 0.7, 1: 0.5}})
    with pytest.raises(RunError, match="can't be written"):
        relaunch(folder, tmp_path / "no" / "best.toml", "--selection", "iid")
    with pytest.raises(RunError, match=r"no setting .* has a result"):
        relaunch(folder, tmp_path / "best.toml", "--selection", "loo")
    run = next(folder.glob("ERM-*-0-*/results.jsonl"))
    run.write_text(run.read_text().replace('"steps": 21', '"steps": 22'))
    with pytest.raises(RunError, match="made alike; steps on EmojiStyles is one of"):
        relaunch(folder, tmp_path / "best.toml", "--selection", "iid")


def test_a_setting_that_lacks_a_target_or_a_number_is_no_best_one(vlcs):
    records = [record for key in vlcs.runs for record in vlcs.records(key, str(key))]
    groups = candidates(Q(records), METHODS["iid"])
    (both,) = settings(groups).values()
    worse, better = sorted(both, key=lambda it: it.val_acc)
    assert best(both) is better
    lacking = Setting(better.hparams, [it for it in better.candidates if it.target != 3])
    assert best([worse, lacking]) is worse
    broken = Setting(better.hparams, [replace(it, val_acc=math.nan) for it in better.candidates])
    assert best([worse, broken]) is worse
    assert best([broken]) is None


def test_candidates_are_those_of_the_selection_method_the_chosen_one_first(vlcs):
    records = [record for key in vlcs.runs for record in vlcs.records(key, str(key))]
    for name in ("iid", "loo", "oracle"):
        groups = candidates(Q(records), METHODS[name])
        assert {(first.trial, first.target): first.test_acc for first, *_ in groups} == {
            (trial, target): vlcs.chosen(trial, target, name) for trial in (0, 1) for target in range(4)
        }
        assert all(it.run[0]["args"]["test_envs"] == [it.target] for group in groups for it in group)
