"""`--relaunch_best`: the sweep file has the best settings, and `sweep` accepts it."""

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
from domainbed.results.hparam_search import HparamSetting, hparam_settings, ranked_candidates
from domainbed.results.relaunch import best_setting
from domainbed.scripts import collect_results
from domainbed.sweep.flags import parse
from domainbed.sweep.planned_jobs import make_jobs

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
    return [job.train_args for job in make_jobs(parse(["launch", *map(str, flags)]))]


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
    # Settings at their default are omitted.
    assert {*content} == {
        "output_dir",
        "n_trials",
        "trials_from",
        "n_hparams",
        "seed_scheme",
        "selection",
        "datasets",
        "algorithms",
        "test_envs",
        "single_test_envs",
        "steps",
        "data_dir",
        "hparams",
    }
    assert (content["selection"], content["single_test_envs"]) == (["iid"], True)
    assert (content["test_envs"], content["steps"], content["data_dir"]) == ([0, 1, 2, 3], 1001, "/data")
    relaunch(folder, path, "--selection", "loo")
    assert tomllib.loads(path.read_text())["single_test_envs"] is False  # this method needs pairs of targets


def test_the_file_launches_the_runs_that_it_describes(emoji, tmp_path):
    folder = emoji({"ERM": {0: 0.5, 1: 0.6}, "AgrSum": {0: 0.7, 1: 0.5}}, grouping="domain")
    relaunch(folder, tmp_path / "best.toml", "--selection", "iid")
    jobs = jobs_of("--config", tmp_path / "best.toml")
    assert len(jobs) == 2 * 4 * 20
    rates = {job["algorithm"]: json.loads(job["hparams"])["lr"] for job in jobs}
    assert rates == {"ERM": 0.1, "AgrSum": 0.01}
    seeds = {(job["trial_seed"], *job["test_envs"], job["seed"]) for job in jobs}
    assert len(seeds) == 4 * 20  # the two algorithms share them
    assert {job["splits"] for job in jobs} == {"70/10/20"}
    assert {job["trial_seed"] for job in jobs} == {*range(1, 21)}  # the search had trial 0
    relaunch(folder, tmp_path / "same.toml", "--selection", "iid", "--relaunch_from", "0")
    same = jobs_of("--config", tmp_path / "same.toml")
    assert {job["trial_seed"] for job in same} == {*range(20)}
    assert parse(["launch", "--config", str(tmp_path / "best.toml")]).output_dir == f"{folder}-best"


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
    with pytest.raises(RunError, match="cannot write"):
        relaunch(folder, tmp_path / "no" / "best.toml", "--selection", "iid")
    with pytest.raises(RunError, match=r"no setting .* has results"):
        relaunch(folder, tmp_path / "best.toml", "--selection", "loo")
    run = next(folder.glob("ERM-*-0-*/results.jsonl"))
    run.write_text(run.read_text().replace('"steps": 21', '"steps": 22'))
    several = (
        r"--relaunch_best: ERM on EmojiStyles: several experiments.*steps is 21 \(7 runs\), 22 \(1 run\)"
    )
    with pytest.raises(RunError, match=several):
        relaunch(folder, tmp_path / "best.toml", "--selection", "iid")


def test_methods_with_other_settings_are_not_relaunched_together(emoji, tmp_path):
    folder = emoji({"ERM": {0: 0.7}, "IRM": {0: 0.5}})
    for run in folder.glob("IRM-*/results.jsonl"):
        run.write_text(run.read_text().replace('"steps": 21', '"steps": 22'))
    with pytest.raises(
        RunError, match=r"equal settings, but steps on EmojiStyles is one of .* --where steps="
    ):
        relaunch(folder, tmp_path / "best.toml", "--selection", "iid")


def test_a_setting_without_a_target_or_a_number_is_never_the_best(vlcs):
    records = [record for key in vlcs.runs for record in vlcs.records(key, str(key))]
    groups = ranked_candidates(Q(records), METHODS["iid"])
    (both,) = hparam_settings(groups).values()
    worse, better = sorted(both, key=lambda setting: setting.val_acc)
    assert best_setting(both) is better
    lacking = HparamSetting(better.hparams, [each for each in better.candidates if each.target != 3])
    assert best_setting([worse, lacking]) is worse
    broken = HparamSetting(better.hparams, [replace(each, val_acc=math.nan) for each in better.candidates])
    assert best_setting([worse, broken]) is worse
    assert best_setting([broken]) is None
