"""`domainbed.launch_sweep`: what `sweep launch` does, from Python."""

import shlex

import numpy as np
import pytest

import domainbed
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.erm import ERM
from domainbed.errors import RunError, UsageError, describe
from domainbed.scripts import sweep as sweep_script
from domainbed.sweep.manifest import read_manifest
from domainbed.training.stop_requests import Preempted

GRID = {
    "datasets": ["Debug28"],
    "algorithms": "ERM",
    "n_trials": 2,
    "n_hparams": 1,
    "test_envs": [0, 2],
    "single_test_envs": True,
    "hparams": {"batch_size": 4},
    "steps": 3,
    "holdout_fraction": np.float64(0.25),
    "grouping": ["domain", "pooled"],
    "command_launcher": "dummy",
    "quiet": True,
}


def test_a_sweep_launched_from_python_is_that_of_its_command_line(tmp_path, capsys):
    path = domainbed.launch_sweep(tmp_path / "sweep", **GRID)
    assert path == tmp_path / "sweep"
    launched = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Dummy launcher: ")]
    assert len(launched) == 8
    assert all("--holdout_fraction 0.25" in line and "--steps 3" in line for line in launched)
    manifest = read_manifest(path)
    (command,) = manifest.commands
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "domainbed.scripts.sweep"]
    other = tmp_path / "other"
    assert sweep_script.main([*words[3:], "--output_dir", str(other)]) == 0
    assert read_manifest(other).jobs == manifest.jobs


def test_targets_by_name_are_the_sweep_of_their_indices(tmp_path):
    emoji = GRID | {"datasets": "EmojiStyles", "target_sets": None}
    sweeps = [
        domainbed.launch_sweep(tmp_path / name, **emoji | {"test_envs": targets})
        for name, targets in (("indices", [0, 2]), ("names", [0, "line"]))
    ]
    sets = {"single_test_envs": None, "test_envs": None}
    sweeps += [
        domainbed.launch_sweep(tmp_path / name, **emoji | sets | {"target_sets": targets})
        for name, targets in (("indexed sets", ["0 2", "1"]), ("named sets", ["flat Line", "gradient"]))
    ]
    contents = [(each.jobs, each.target_sets) for each in map(read_manifest, sweeps)]
    assert contents[0] == contents[1] != contents[2] == contents[3]


def test_a_setting_of_the_sweep_file_stays_where_python_gives_none(tmp_path, capsys):
    file = tmp_path / "mine.toml"
    file.write_text('datasets = ["Debug28"]\nalgorithms = ["ERM"]\nn_trials = 2\nn_hparams = 1\nsteps = 2\n')
    domainbed.launch_sweep(tmp_path / "a", config=file, single_test_envs=True, dry_run=True, verbose=True)
    assert "6 jobs" in capsys.readouterr().out
    domainbed.launch_sweep(tmp_path / "a", config=file, n_trials=1, single_test_envs=True, dry_run=True)
    assert "3 jobs" in capsys.readouterr().out
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"n_trails": 2}, "launch_sweep has no argument n_trails. Did you mean n_trials or"),
        ({"watch": True}, "launch_sweep has no argument watch."),
        ({"n_trials": "two"}, "argument n_trials takes a value of type int, not 'two'."),
        ({"n_trials": 0}, "--n_trials must be at least 1, not 0."),
        ({"test_envs": 0}, "argument test_envs takes a value of type list[int or name], not 0."),
        ({"test_envs": "sketch"}, "--test_envs sketch: Debug28 has no such environment. Known: 0, 1, 2."),
        ({"test_envs": ["-90%"]}, "--test_envs -90%: Debug28 has no such environment. Known: 0, 1, 2."),
        ({"datasets": []}, "argument datasets is empty; give at least one value, or leave it out."),
        ({"single_test_envs": "yes"}, "argument single_test_envs takes a value of type bool, not 'yes'."),
        ({"algorithms": ["AgrSun"]}, "Algorithm not found: AgrSun. Did you mean AgrSum"),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_written(arguments, error, tmp_path):
    with pytest.raises(UsageError) as raised:
        domainbed.launch_sweep(tmp_path / "sweep", **{**GRID, **arguments})
    assert describe(raised.value).startswith(f"error: {error}")
    assert not (tmp_path / "sweep").exists()


def test_a_switch_that_the_sweep_file_sets_cannot_be_unset(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('datasets = ["Debug28"]\nalgorithms = ["ERM"]\nskip_model_save = true\n')
    with pytest.raises(UsageError, match="skip_model_save is set in the sweep file"):
        domainbed.launch_sweep(tmp_path / "a", config=file, skip_model_save=False, dry_run=True)


ONE_RUN = GRID | {"command_launcher": "local", "n_trials": 1, "test_envs": [0], "grouping": "domain"}


class Broken(ERM):
    """Fails in its first update."""

    def update(self, minibatches, unlabeled=None):
        raise RuntimeError("not today")


def test_runs_that_fail_are_an_error_that_names_the_directory(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(REGISTRY, "Broken", Broken)
    with pytest.raises(RunError, match=r"sweep failed, see failed\.json .* launches them again"):
        domainbed.launch_sweep(tmp_path / "sweep", **ONE_RUN | {"algorithms": ["Broken"]})
    assert "not today" in capsys.readouterr().err


def test_a_sweep_stopped_by_its_time_limit_is_resumed_by_the_same_call(tmp_path):
    with pytest.raises(Preempted, match="sweep were stopped; the same call resumes them"):
        domainbed.launch_sweep(tmp_path / "sweep", **ONE_RUN, time_limit=1e-6)
    domainbed.launch_sweep(tmp_path / "sweep", **ONE_RUN)
    frame = domainbed.collect(tmp_path / "sweep", "records", finished_only=True)
    assert frame["step"].tolist()[-1] == 2
