import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from domainbed.errors import RunError, UsageError
from domainbed.training.run_dir import Busy, RunDir
from domainbed.training.run_state import RunState, failure_reason, mark_queued, read_json, run_state

ROOT = Path(__file__).parents[2]
SETTINGS = {"dataset": "Debug28", "steps": 3}


def enter(path, **settings):
    with RunDir(path, SETTINGS | settings) as directory:
        directory.write_summary({}, machine={})


def test_states_of_a_successful_run(tmp_path):
    path = tmp_path / "run"
    assert run_state(path) is RunState.ABSENT
    path.mkdir()
    assert run_state(path) is RunState.QUEUED
    with RunDir(path, SETTINGS) as directory:
        assert run_state(path) is RunState.RUNNING
        directory.finish()
    assert run_state(path) is RunState.DONE
    assert (path / "done").read_bytes() == b"done"


def test_a_failure_is_recorded_in_one_line(tmp_path):
    with pytest.raises(RunError, match="loss"), RunDir(tmp_path, SETTINGS):
        raise RunError("loss is\nnan")
    assert run_state(tmp_path) is RunState.FAILED
    assert failure_reason(tmp_path) == "loss is nan"


def test_ctrl_c_is_an_interruption_not_a_failure(tmp_path):
    code = (
        "import sys, os, signal; from pathlib import Path; from domainbed.training.run_dir import RunDir\n"
        f"with RunDir(Path(sys.argv[1]), {SETTINGS}): raise KeyboardInterrupt"
    )
    subprocess.run(
        [sys.executable, "-c", code, tmp_path], env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=-3
    )
    assert run_state(tmp_path) is RunState.INTERRUPTED


def test_after_ctrl_c_the_same_process_can_enter_again(tmp_path):
    """As in a notebook."""
    with pytest.raises(KeyboardInterrupt), RunDir(tmp_path, SETTINGS):
        raise KeyboardInterrupt
    assert run_state(tmp_path) is RunState.INTERRUPTED
    enter(tmp_path)


def test_only_one_of_several_processes_enters(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from domainbed.errors import RunError\n"
        "from domainbed.training.run_dir import RunDir\n"
        "time.sleep(max(0, float(sys.argv[2]) - time.time()))\n"
        "try:\n"
        f"    with RunDir(Path(sys.argv[1]), {SETTINGS}): time.sleep(2); print('mine')\n"
        "except RunError: print('refused')"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(time.time() + 1.5)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    workers = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    assert sorted(worker.communicate()[0].strip() for worker in workers) == ["mine", *["refused"] * 3]


def test_attempts_are_numbered_and_only_files_of_the_run_are_moved(tmp_path):
    (tmp_path / "attempt-7").mkdir()
    (tmp_path / "model_notes.pkl").write_text("mine")
    enter(tmp_path)
    enter(tmp_path)
    assert (tmp_path / "attempt-8" / "run.json").exists()
    assert (tmp_path / "model_notes.pkl").exists()


def test_a_running_run_is_refused_and_a_killed_one_is_interrupted(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from domainbed.training.run_dir import RunDir\n"
        f"with RunDir(Path(sys.argv[1]), {SETTINGS}): print('in', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    worker = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)
    worker.stdout.readline()
    assert run_state(tmp_path) is RunState.RUNNING
    with pytest.raises(RunError, match=f"is in use by process {worker.pid}"):
        enter(tmp_path)
    assert run_state(tmp_path) is RunState.RUNNING
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    assert run_state(tmp_path) is RunState.INTERRUPTED
    enter(tmp_path)


def test_a_run_queued_by_a_dead_launcher_is_interrupted(tmp_path):
    mark_queued(tmp_path / "run")
    assert run_state(tmp_path / "run") is RunState.QUEUED
    code = "import sys; from pathlib import Path; from domainbed.training.run_state import mark_queued\n"
    code += "mark_queued(Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, tmp_path / "run"]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    assert run_state(tmp_path / "run") is RunState.INTERRUPTED


def test_other_settings_are_refused_and_named(tmp_path):
    enter(tmp_path)
    with pytest.raises(UsageError, match=r"other settings \(steps was 3, now 4\)"):
        enter(tmp_path, steps=4)


def test_files_of_an_unfinished_attempt_are_kept(tmp_path):
    for attempt in range(2):
        enter(tmp_path)
        (tmp_path / "results.jsonl").write_text(f"{attempt}\n")
    enter(tmp_path)
    assert (tmp_path / "attempt-1/results.jsonl").read_text() == "0\n"
    assert (tmp_path / "attempt-2/results.jsonl").read_text() == "1\n"
    assert not (tmp_path / "results.jsonl").exists()


def test_a_finished_run_is_kept_unless_restart_is_set(tmp_path):
    with RunDir(tmp_path, SETTINGS) as directory:
        directory.write_summary({}, machine={})
        directory.finish()
    with RunDir(tmp_path, SETTINGS) as directory:
        assert directory.finished
    with RunDir(tmp_path, SETTINGS | {"steps": 9}, restart=True) as directory:
        assert not directory.finished
    assert (tmp_path / "attempt-1/done").exists()


def test_nobody_writes_into_a_run_that_another_process_has_finished(tmp_path):
    with RunDir(tmp_path, SETTINGS) as directory:
        directory.write_summary({}, machine={})
        (tmp_path / "done").write_text("done")  # by a process that took over and gave its claim up
        for write in (
            directory.check_claim,
            directory.finish,
            lambda: directory.write_summary({}, machine={}),
        ):
            with pytest.raises(Busy, match="was taken over and finished by another process"):
                write()


def test_results_without_settings_are_refused(tmp_path):
    (tmp_path / "results.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match=r"has results but no run\.json with their settings"):
        enter(tmp_path)
    assert (tmp_path / "results.jsonl").read_text() == "{}\n"


def test_a_run_that_another_process_begins_between_two_looks_is_busy(tmp_path, monkeypatch):
    """It writes run.json first; who has just missed that file must not take its results for a stranger's."""
    other, missed = RunDir(tmp_path, SETTINGS), []

    def look(path):
        content = read_json(path)
        if path.name == "run.json" and not missed:
            missed.append(content)
            other.__enter__()
            other.write_summary({}, machine={})
            (tmp_path / "results.jsonl").touch()
        return content

    monkeypatch.setattr("domainbed.training.run_dir.read_json", look)
    with pytest.raises(Busy):
        enter(tmp_path)
    assert missed == [None]
    other.__exit__(None, None, None)


def test_an_unwritable_directory_is_a_usage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write to output directory .* \(Not a directory\)"):
        enter(tmp_path / "file" / "run")
