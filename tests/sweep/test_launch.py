"""Launching and deleting jobs from Python, without the script."""

import os
import shlex
import signal

import pytest

from domainbed.sweep.defaults import todays_defaults
from domainbed.sweep.job import Job
from domainbed.sweep.launch import delete_incomplete, launch
from domainbed.sweep.launchers import LaunchOptions, dummy_launcher
from domainbed.sweep.local import local_launcher
from domainbed.sweep.manifest import Manifest, read_manifest
from domainbed.sweep.other_designs import different_designs
from domainbed.training.run_state import RunState, record_failure, record_preemption

ARGS = {
    **{"dataset": "Debug28", "algorithm": "ERM", "test_envs": [0], "hparams_seed": 0, "steps": 1},
    **{"hparams": '{"batch_size": 8}', "skip_model_save": True},
}


class Cancelled(Exception):
    pass


def cancel():
    raise Cancelled


@pytest.fixture
def jobs(tmp_path):
    """`jobs()`: three jobs of a sweep in their current state."""
    return lambda: [Job(ARGS | {"seed": seed}, str(tmp_path / "sweep")) for seed in range(3)]


def test_a_launch_trains_the_runs_and_records_them_in_the_manifest(jobs, tmp_path):
    options = LaunchOptions(output_dir=tmp_path / "sweep", workers=1)
    assert launch(jobs(), local_launcher, options, selection=["oracle"], command="a command") == 0
    assert [job.state for job in jobs()] == [Job.DONE] * 3
    manifest = read_manifest(tmp_path / "sweep")
    assert manifest.jobs == {job.name: ARGS | {"seed": seed} for seed, job in enumerate(jobs())}
    assert (manifest.selection, manifest.commands) == (("oracle",), ("a command",))


def test_a_launch_starts_new_failed_and_stopped_jobs(jobs, tmp_path, capsys):
    failed, stopped, done = jobs()
    for job in (failed, stopped, done):
        (tmp_path / "sweep" / job.name).mkdir(parents=True)
    record_failure(tmp_path / "sweep" / failed.name, "no luck", 1)
    record_preemption(tmp_path / "sweep" / stopped.name, "no time")
    (tmp_path / "sweep" / done.name / "done").write_text("done", encoding="utf-8")
    assert launch(jobs(), dummy_launcher, LaunchOptions(output_dir=tmp_path / "sweep")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["Restarting 2 incomplete jobs: 1 failed, 1 were stopped.", "About to launch 2 jobs."]
    commands = [f"Dummy launcher: {job.command_str}" for job in (failed, stopped)]
    assert [line for line in lines if line.startswith("Dummy launcher: ")] == commands


def test_a_run_at_work_is_not_deleted_whatever_its_file_times_say(jobs, tmp_path, start_script, wait_until):
    first, second, _ = jobs()
    (tmp_path / "sweep" / second.name).mkdir(parents=True)
    (words,) = [command[3:] for command in [shlex.split(first.command_str)]]
    words[words.index("--steps") + 1] = "100000"
    worker = start_script("train", *words)
    path = tmp_path / "sweep" / first.name
    wait_until((path / "results.jsonl").exists)
    (claim,) = path.glob("claim-*.json")
    os.utime(claim, (0, 0))  # as after this host's clock was set, until the next heartbeat
    delete_incomplete(jobs())
    assert path.exists()
    assert not (tmp_path / "sweep" / second.name).exists()
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    delete_incomplete(jobs())
    assert not path.exists()


def test_a_cancelled_launch_writes_nothing_and_a_cancelled_deletion_deletes_nothing(jobs, tmp_path):
    options = LaunchOptions(output_dir=tmp_path / "sweep")
    with pytest.raises(Cancelled):
        launch(jobs(), dummy_launcher, options, confirm=cancel)
    assert not (tmp_path / "sweep").exists()
    launch(jobs(), dummy_launcher, options)
    with pytest.raises(Cancelled):
        delete_incomplete(jobs(), confirm=cancel)
    assert [job.run_state for job in jobs()] == [RunState.QUEUED] * 3
    delete_incomplete(jobs())
    assert [job.run_state for job in jobs()] == [RunState.ABSENT] * 3


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--splits", "70/10/20"], " --splits 70/10/20:per_trial divides the data anew in each trial."),
        (["--splits", "70/10/20:unstratified"], " --splits 70/10/20:unstratified:per_trial divides"),
        (["--splits", "whole"], "for this split only, not for the dataset.\n"),
        (["--splits", "70/10/20:per_trial"], None),
        ([], None),
        (["--splits", "70/10/20", "--n_trials", 1], None),
    ],
)
def test_a_split_that_all_trials_share_is_announced_with_its_cost(sweep, flags, line):
    shown = sweep("launch", "--n_trials", 3, *flags, "--command_launcher", "dummy", "--quiet")
    assert shown.returncode == 0, shown.stderr
    assert ("All 3 trials share one split" in shown.stdout) == (line is not None)
    assert (line or "") in shown.stdout


def test_a_launch_with_other_design_settings_into_the_same_directory_says_so_before_it_starts(sweep):
    def launch(*flags):
        shown = sweep("launch", "--command_launcher", "dummy", "--quiet", *flags)
        assert shown.returncode == 0, shown.stderr
        return shown.stdout.split("About to launch")[0]

    first = launch("--steps", 3)
    assert "earlier launches" not in first
    assert "earlier launches" not in launch("--steps", 3, "--n_trials", 2, "--evaluate", "all")
    again = launch("--steps", 5, "--sampling", "epochs")
    assert "sweep: steps is 3 in earlier launches and 5 in this one: ERM on Debug28" in again
    assert (
        "sweep: sampling is replacement in earlier launches and epochs in this one: ERM on Debug28" in again
    )
    assert "Reports do not pool such runs: choose with --where or --by, or launch into another" in again
    assert "earlier launches" not in launch("--steps", 7, "--algorithms", "IRM")


def test_hyper_parameters_of_design_are_compared_with_earlier_launches():
    def job(hparams, **more):
        return {"dataset": "Debug28", "algorithm": "ERM", "hparams": hparams, "test_envs": [0]} | more

    earlier = Manifest({"a": job('{"lr": 0.1}'), "b": job(None)}, defaults=todays_defaults())
    assert different_designs(earlier, {"c": job('{"lr": 0.2}', hparams_seed=3)}) == []
    assert different_designs(earlier, {"c": job('{"freeze_bn": false}')}) == []
    assert different_designs(earlier, {"c": job('{"freeze_bn": true}')}) == [
        "freeze_bn is false in earlier launches and true in this one: ERM on Debug28"
    ]
    assert different_designs(None, {"c": job(None)}) == []


@pytest.mark.parametrize("launcher", ["local", "dummy"])
def test_an_unknown_stage_to_freeze_is_refused_before_anything_is_written(sweep, launcher, tmp_path):
    shown = sweep("launch", "--hparams", '{"freeze": "conv5"}', "--command_launcher", launcher)
    assert shown.returncode == 2
    assert "must be one of none, conv1, conv2, conv3, conv4, all, not 'conv5'" in shown.stderr
    assert shown.stderr.count("\n") == 1
    assert not (tmp_path / "sweep").exists()
