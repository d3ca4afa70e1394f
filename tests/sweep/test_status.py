import json
import os
import re

import pytest

from domainbed.errors import UsageError
from domainbed.sweep.manifest import add_to_manifest
from domainbed.sweep.status import as_json, as_text, count_states, seconds_left, status_of
from domainbed.training.claims import this_process
from domainbed.training.run_state import mark_queued, record_failure

ARGS = {"dataset": "Debug28", "algorithm": "ERM", "test_envs": [0], "hparams_seed": 0, "trial_seed": 0}


@pytest.fixture
def folder(tmp_path):
    """One run in each state."""
    names = ["absent", "done", "failed", "interrupted", "preempted", "queued", "running", "starting"]
    add_to_manifest(tmp_path, dict.fromkeys(names, ARGS), ())
    for name in names[1:]:
        mark_queued(tmp_path / name)
    (tmp_path / "done" / "done").write_text("done")
    record_failure(tmp_path / "failed", "loss is\nnan", 1)
    claim = this_process() | {"beat": 3, "seconds": 20.0, "step": 30, "n_steps": 120, "first_step": 20}
    (tmp_path / "running" / "claim-1.json").write_text(json.dumps(claim))
    (tmp_path / "starting" / "claim-1.json").write_text(json.dumps(this_process()))
    (tmp_path / "interrupted" / "claim-2.json").write_text(json.dumps(claim | {"started": "never"}))
    (tmp_path / "preempted" / "claim-2.json").write_text(json.dumps(claim | {"released": True}))
    (tmp_path / "preempted" / "preempted.json").write_text("{}")
    return tmp_path


def test_states_progress_and_errors_are_read_from_the_files(folder):
    runs = {run.name: run for run in status_of(folder)}
    assert {name: run.state for name, run in runs.items()} == {
        **{name: name for name in ("done", "failed", "interrupted", "preempted", "queued", "running")},
        "starting": "running",
        "absent": "not launched",
    }
    assert runs["running"].eta_seconds == pytest.approx(20.0 / 10 * 90)
    assert (runs["running"].step, runs["running"].n_steps) == (30, 120)
    assert runs["running"].host == this_process()["host"]
    assert runs["starting"].eta_seconds is None
    assert (runs["failed"].exit_status, runs["failed"].error) == (1, "loss is nan")
    assert runs["preempted"].step == 30
    assert runs["done"].about == ARGS


def test_the_expected_end_follows_from_finished_and_running_runs(folder):
    assert seconds_left(status_of(folder)) is None  # no finished run tells how long one takes
    (folder / "done" / "run.json").write_text("{}")
    os.utime(folder / "done" / "run.json", (1000, 1000))
    os.utime(folder / "done" / "done", (1040, 1040))
    runs = status_of(folder)
    assert {run.name: run.seconds for run in runs if run.seconds} == {"done": 40}
    # 180 s of the running one, 40 s each of five others, by the two that are running
    assert seconds_left(runs) == pytest.approx((180 + 5 * 40) / 2)
    assert json.loads(as_json(runs))["seconds_left"] == pytest.approx(190)
    line = list(as_text(runs))[1]
    assert re.fullmatch(r"Expected end: .*, in 3 min 10 s, with as many runs at a time as now\.", line)


def test_text_and_json_agree(folder):
    runs = status_of(folder)
    lines = list(as_text(runs))
    assert lines[0] == (
        "8 runs: 1 not launched, 1 queued, 2 running, 1 preempted, 1 interrupted, 1 failed, 1 done."
    )
    about = "dataset=Debug28 algorithm=ERM test_envs=[0] hparams_seed=0 trial_seed=0"
    host = this_process()["host"]
    assert lines[1:] == [
        f"  FAILED   failed {about}: loss is nan (exit status 1)",
        f"  running  running {about}: step 30 of 120, 3 min 00 s left, on {host}",
        f"  running  starting {about}: starting, on {host}",
    ]
    content = json.loads(as_json(runs))
    assert content["counts"] == count_states(runs)
    assert sum(content["counts"].values()) == len(content["runs"]) == 8


def test_long_durations_are_in_hours(folder):
    marker = folder / "running" / "claim-1.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"seconds": 1000.0}))
    assert "step 30 of 120, 2 h 30 min left" in "\n".join(as_text(status_of(folder)))


def test_a_directory_without_a_sweep_is_rejected(tmp_path):
    with pytest.raises(UsageError, match="contains no sweep"):
        status_of(tmp_path)
