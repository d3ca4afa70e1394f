import hashlib
import json
import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbed.errors import RunError, UsageError
from domainbed.sweep.job import Job
from domainbed.training.claims import this_process
from domainbed.training.run_state import RunState, mark_queued, record_failure
from domainbed.training.train_command import build_parser

ARGS = {"dataset": "Debug28", "algorithm": "ERM", "test_envs": [0, 2], "hparams_seed": 3}


def test_names_and_commands_equal_upstreams(vectors):
    for expected in vectors("jobs")["jobs"]:
        job = Job(expected["train_args"], "/sweep")
        assert job.output_dir == f"/sweep/{expected['md5']}"
        assert job.command_str == expected["command"]
        assert job.train_args == expected["train_args"] | {"output_dir": job.output_dir}


def test_the_name_is_the_hash_of_the_arguments():
    args = {
        **{"algorithm": "ERM", "data_dir": "/checkpoint/dlp/datasets_new", "dataset": "VLCS"},
        **{"holdout_fraction": 0.2, "hparams_seed": 1, "seed": 360234358, "steps": 1001},
        **{"task": "domain_generalization", "test_envs": [1, 2], "trial_seed": 0},
    }
    assert Job(args, "x").name == "0657090f9a83ff76efe083a104fde93a"
    assert Job(dict(reversed(args.items())), "x").name == "0657090f9a83ff76efe083a104fde93a"


def test_a_job_may_have_any_arguments():
    digest = hashlib.md5(json.dumps({"foo": "bar"}).encode()).hexdigest()
    job = Job({"foo": "bar"}, "d")
    assert job.command_str == f"python -m domainbed.scripts.train --foo bar --output_dir d/{digest}"


def test_true_is_a_bare_flag_and_none_and_false_are_left_out():
    flags = Job({"b": True, "a": None, "c": False, "d": 0, "e": []}, "x").command_str.split()[3:-2]
    assert flags == ["--b", "--d", "0", "--e"]


def test_the_given_arguments_are_not_modified():
    args = {"test_envs": [0]}
    Job(args, "x").train_args["test_envs"].append(1)
    assert args == {"test_envs": [0]}


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_train_receives_any_text_unchanged(text):
    job = Job(ARGS | {"data_dir": text, "hparams": json.dumps({"weights": text})}, "out")
    args = build_parser().parse_args(shlex.split(job.command_str)[3:])
    assert args.data_dir == text
    assert json.loads(args.hparams) == {"weights": text}


def test_the_shell_expands_nothing_in_a_command(tmp_path):
    sweep = str(tmp_path / "a b'c\"; $(touch owned) `touch owned` & \\ #")
    args = ARGS | {"data_dir": "$HOME; touch owned", "hparams": '{"lr": "$(touch owned)"}'}
    job = Job(args, sweep)
    flags = job.command_str.removeprefix("python -m domainbed.scripts.train")
    subprocess.run(["sh", "-c", f"printf '%s\\n' {flags} > words"], cwd=tmp_path, check=True)
    assert not (tmp_path / "owned").exists()
    printed = (tmp_path / "words").read_text(encoding="utf-8").splitlines()
    assert printed == shlex.split(job.command_str)[3:]


def test_states_are_read_from_the_files(tmp_path):
    def state():
        job = Job(ARGS, str(tmp_path))
        assert str(job) == f"{job.state}: {job.output_dir} ('Debug28', 'ERM', [0, 2], 3)"
        return job.state, job.run_state

    folder = tmp_path / Job(ARGS, str(tmp_path)).name
    assert state() == ("Not launched", RunState.ABSENT)
    mark_queued(folder)
    assert state() == ("Incomplete", RunState.QUEUED)
    dead = this_process() | {"started": "never"}
    (folder / "queued.json").write_text(json.dumps(dead), encoding="utf-8")
    assert state() == ("Incomplete", RunState.INTERRUPTED)
    (folder / "claim-1.json").write_text(json.dumps(this_process()), encoding="utf-8")
    assert state() == ("Incomplete", RunState.RUNNING)
    (folder / "claim-1.json").write_text(json.dumps(dead), encoding="utf-8")
    assert state() == ("Incomplete", RunState.INTERRUPTED)
    record_failure(folder, "no\nluck", 1)
    assert state() == ("Incomplete", RunState.FAILED)
    assert Job(ARGS, str(tmp_path)).failure == "no luck"
    (folder / "done").write_text("done", encoding="utf-8")
    assert state() == ("Done", RunState.DONE)


def test_launch_passes_on_the_commands_and_delete_resets_the_state(tmp_path, capsys):
    job = Job(ARGS, str(tmp_path))
    received = []
    Job.launch([job], received.append)
    assert received == [[job.command_str]]
    assert job.refreshed().state == Job.INCOMPLETE
    assert job.refreshed().name == job.name
    # The launcher does not wait, so the run stays queued even if this process dies.
    assert job.refreshed().run_state is RunState.QUEUED
    assert not (tmp_path / job.name / "queued.json").exists()
    Job.delete([job, job])
    assert job.refreshed().state == Job.NOT_LAUNCHED
    lines = ["Launching...", "Making job directories:", "Launched 1 jobs!", "Deleting...", "Deleted 2 jobs!"]
    assert capsys.readouterr().out.splitlines() == lines


def test_errors_name_directories_that_cannot_be_created_or_deleted(tmp_path):
    job = Job(ARGS, str(tmp_path))
    (tmp_path / job.name).write_text("a file in the way", encoding="utf-8")
    with pytest.raises(UsageError, match=f"cannot write to .*{job.name}: File exists"):
        Job.launch([job], lambda commands: None)
    with pytest.raises(RunError, match=f"cannot delete .*{job.name}: Not a directory"):
        Job.delete([job])
