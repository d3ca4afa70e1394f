"""Commands and runs in forks: in parallel, failing, killed, or stopped with their parent."""

import json
import os
import shlex
import signal
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.erm import ERM
from domainbed.sweep.devices import FORKS, Slot, local_slots
from domainbed.sweep.job import Job
from domainbed.sweep.launchers import LaunchOptions
from domainbed.sweep.local import local_launcher, run_commands
from domainbed.sweep.manifest import read_manifest
from domainbed.sweep.process import BUSY
from domainbed.training.run_state import RunState, failure_reason, run_state
from domainbed.training.stop_requests import AFTER_CHECKPOINTS

TRAIN = "python -m domainbed.scripts.train --dataset Debug28 --skip_model_save"
SMALL = """--hparams '{"batch_size": 8, "featurizer": "small_cnn"}'"""


def command(output_dir, *flags):
    words = [*shlex.split(TRAIN), *map(str, flags), "--output_dir", str(output_dir)]
    if "--hparams" not in flags:
        words += shlex.split(SMALL)
    return shlex.join(words)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_statuses_are_in_the_order_of_the_commands():
    commands = ["sleep 0.3; exit 3", "exit 4", "true", "kill -9 $$", "echo 'unbalanced", "exit 5"]
    statuses = run_commands(commands, [Slot()] * 2)
    assert statuses == [3, 4, 0, -9, 2, 5]


def test_many_short_commands_all_have_a_status():
    assert run_commands([f"exit {i % 7}" for i in range(60)], [Slot()] * 5) == [i % 7 for i in range(60)]
    assert run_commands([], [Slot()]) == []


def test_commands_run_in_parallel(tmp_path):
    # Each command waits for the other: one at a time, they would never end.
    meet = [
        f"touch {tmp_path}/{mine}; while [ ! -e {tmp_path}/{other} ]; do sleep 0.02; done"
        for mine, other in (("a", "b"), ("b", "a"))
    ]
    assert run_commands(meet, [Slot()] * 2) == [0, 0]


@pytest.mark.parametrize("fork", [True, False])
def test_a_failed_run_does_not_stop_the_others(tmp_path, fork):
    bad = [
        command(tmp_path / "typo", "--hparams", '{"batch_sise": 8}'),
        command(tmp_path / "flag", "--nosuch", 1),
        command(tmp_path / "diverged", "--steps", 4, "--hparams", '{"lr": 1e30, "batch_size": 8}'),
    ]
    good = [command(tmp_path / f"good{i}", "--steps", 2) for i in range(2)]
    # New interpreters take long to start.
    commands = [good[0], *bad, good[1]] if fork else [bad[0], good[0]]
    statuses = run_commands(commands, [Slot(fork=fork, threads=1)] * 2)
    assert statuses == ([0, 2, 2, 1, 0] if fork else [2, 0])
    assert run_state(tmp_path / "good0") is RunState.DONE
    assert not (tmp_path / "good0" / "launch.log").exists()
    assert run_state(tmp_path / "typo") is RunState.FAILED
    assert failure_reason(tmp_path / "typo").startswith(
        "unknown hyper-parameter 'batch_sise'. Did you mean batch_size"
    )
    if fork:
        assert "unrecognized arguments: --nosuch 1" in failure_reason(tmp_path / "flag")
        assert "training diverged; try a smaller lr" in failure_reason(tmp_path / "diverged")
        assert (tmp_path / "diverged" / "results.jsonl").stat().st_size
        assert "error: loss is nan" in (tmp_path / "diverged" / "launch.log").read_text(encoding="utf-8")


def test_the_recorded_failure_is_that_of_the_last_attempt(tmp_path):
    run_commands(
        [command(tmp_path / "run", "--steps", 4, "--hparams", '{"lr": 1e30, "batch_size": 8}')], [Slot()]
    )
    assert "diverged" in failure_reason(tmp_path / "run")
    run_commands([command(tmp_path / "run", "--steps", 0)], [Slot()])
    assert failure_reason(tmp_path / "run") == "--steps must be at least 1, not 0."


def test_an_unexpected_exception_leaves_its_traceback_in_the_log(tmp_path, monkeypatch):
    class Buggy(ERM):
        def update(self, minibatches, unlabeled=None):
            return {"loss": 1 / 0}

    monkeypatch.setitem(REGISTRY, "Buggy", Buggy)
    assert run_commands([command(tmp_path / "run", "--algorithm", "Buggy")], [Slot(threads=1)]) == [1]
    assert failure_reason(tmp_path / "run") == "ZeroDivisionError: division by zero"
    assert "Traceback" in (tmp_path / "run" / "launch.log").read_text(encoding="utf-8")


def test_a_run_killed_while_it_draws_its_progress_bar_does_not_block_others(tmp_path, monkeypatch):
    class Killed(ERM):
        def update(self, minibatches, unlabeled=None):
            with tqdm.get_lock():
                os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setitem(REGISTRY, "Killed", Killed)
    commands = [command(tmp_path / name, "--algorithm", name, "--steps", 2) for name in ("Killed", "ERM")]
    assert run_commands(commands, [Slot(threads=1)]) == [-signal.SIGKILL, 0]


@pytest.mark.timeout(60)
def test_runs_start_from_a_process_that_has_used_several_threads(tmp_path):
    torch.set_num_threads(2)
    try:
        torch.ones(10**6).add_(1)
        flags = ("--steps", 2, "--hparams", '{"batch_size": 64}')
        assert run_commands([command(tmp_path / "run", *flags)], [Slot(threads=2)]) == [0]
    finally:
        torch.set_num_threads(1)


def test_a_command_with_shell_syntax_is_executed_by_a_shell(tmp_path, monkeypatch):
    monkeypatch.setenv("HERE", str(tmp_path))
    assert run_commands([f"{TRAIN} --nosuch 2> $HERE/printed"], [Slot()]) == [2]
    assert "unrecognized arguments: --nosuch" in (tmp_path / "printed").read_text(encoding="utf-8")


def test_a_finished_run_is_not_repeated(tmp_path):
    run = command(tmp_path / "run", "--steps", 2)
    assert local_launcher([run, run], LaunchOptions(workers=1)) == [0, 0]
    assert len((tmp_path / "run" / "results.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    assert not list((tmp_path / "run").glob("attempt-*"))


def test_a_run_started_several_times_at_once_is_done_once(tmp_path):
    run = command(tmp_path / "run", "--steps", 3)
    statuses = local_launcher([run] * 4, LaunchOptions(workers=4))
    assert statuses.count(0) >= 1
    assert set(statuses) <= {0, BUSY}
    assert run_state(tmp_path / "run") is RunState.DONE
    assert not (tmp_path / "run" / "failed.json").exists()
    assert len((tmp_path / "run" / "results.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    assert not list((tmp_path / "run").glob("attempt-*"))


def test_a_killed_run_is_restarted_with_the_same_records(
    tmp_path, sweep, start_sweep, training_runs, wait_until, records_of
):
    flags = ("--steps", 100, "--checkpoint_freq", 1, "--evaluate", "selection")
    process = start_sweep(*flags, "--workers", 2)
    pid, killed = next(iter(wait_until(training_runs).items()))
    os.kill(pid, signal.SIGKILL)
    ended = process.wait()
    out, err = ended.stdout, ended.stderr
    assert ended.returncode == 1, err
    assert "Traceback" not in err
    assert f"FAILED Incomplete: sweep/{killed.name} " in err
    assert "ended by signal 9 after: " in err
    assert "1 of 3 runs failed; see failed.json in their directories." in err
    assert "The sweep is in sweep. To print its tables:" in out
    assert run_state(killed) is RunState.FAILED

    again = sweep("launch", *flags)
    assert again.returncode == 0, again.stderr
    assert "3 jobs: 2 done, 1 incomplete, 0 not launched." in again.stdout
    assert "Restarting 1 incomplete jobs: 1 failed, 0 were stopped." in again.stdout
    assert "About to launch 1 jobs." in again.stdout
    assert (killed / "attempt-1" / "results.jsonl").stat().st_size
    expected = dict(read_manifest(tmp_path / "sweep").jobs[killed.name])
    assert run_commands([Job(expected, str(tmp_path / "other")).command_str], [Slot(threads=1)]) == [0]
    undisturbed, found = records_of(tmp_path / "other" / killed.name), records_of(killed)
    for record in (*undisturbed, *found):
        record["args"].pop("output_dir")
    assert found == undisturbed
    assert [record["step"] for record in found] == list(range(100))


def test_runs_stop_when_the_sweep_is_killed_and_the_next_launch_resumes_them(
    tmp_path, sweep, start_sweep, training_runs, wait_until
):
    process = start_sweep("--steps", 100_000, "--checkpoint_freq", 1, "--workers", 2)
    pids = wait_until(lambda: found if len(found := training_runs()) == 2 else None)
    process.send_signal(signal.SIGKILL)
    process.wait()
    runs = [path for path in (tmp_path / "sweep").iterdir() if path.is_dir()]
    # The two running ones stopped with checkpoints; the third was never started.
    wait_until(lambda: not any(alive(pid) for pid in pids))
    states = sorted(run_state(path).value for path in runs)
    assert states == ["interrupted", "preempted", "preempted"]
    listed = sweep("launch", "--steps", 100_000, "--checkpoint_freq", 1, "--command_launcher", "dummy")
    assert "Restarting 3 incomplete jobs: 0 failed, 3 were stopped." in listed.stdout
    assert listed.stdout.count("Dummy launcher: ") == 3


def test_ctrl_c_stops_the_sweep_and_its_runs_without_a_traceback(
    tmp_path, sweep, start_sweep, training_runs, wait_until
):
    process = start_sweep("--steps", 100_000, "--checkpoint_freq", 1, "--workers", 2)
    pids = wait_until(lambda: found if len(found := training_runs()) == 2 else None)
    os.killpg(process.pid, signal.SIGINT)
    ended = process.wait()
    assert ended.returncode == 130
    assert ended.stderr.count(AFTER_CHECKPOINTS) == 1
    assert ended.stderr.rstrip().endswith("Interrupted. Run the same command to resume from the checkpoint.")
    assert "Traceback" not in ended.stderr
    assert not any(alive(pid) for pid in pids)
    assert {run_state(path) for path in pids.values()} == {RunState.PREEMPTED}
    gone = sweep("delete_incomplete", "--steps", 100_000, "--checkpoint_freq", 1)
    assert "Deleted 3 jobs!" in gone.stdout
    assert not [path for path in (tmp_path / "sweep").iterdir() if path.is_dir()]


def test_delete_incomplete_and_a_second_launch_do_not_touch_running_runs(
    tmp_path, sweep, start_sweep, training_runs, wait_until
):
    flags = ("--steps", 100_000, "--checkpoint_freq", 1)
    first = start_sweep(*flags, "--workers", 1)
    (pid, path), *others = wait_until(training_runs).items()
    assert not others
    launched = sweep("launch", *flags)
    assert launched.returncode == 0
    nothing = "Nothing to launch in sweep; other processes have 1 running, 2 queued."
    assert f"About to launch 0 jobs.\n{nothing}" in launched.stdout
    deleted = sweep("delete_incomplete", *flags)
    assert deleted.returncode == 0
    assert "Keeping 1 incomplete jobs that are running.\nAbout to delete 2 jobs." in deleted.stdout
    assert alive(pid)
    assert path.exists()
    assert first.is_running()


def test_two_concurrent_launches_of_a_sweep_do_each_run_once(tmp_path, start_sweep, records_of):
    flags = ("--steps", 4, "--checkpoint_freq", 1, "--workers", 2)
    processes = [start_sweep(*flags) for _ in range(2)]
    for process in processes:
        ended = process.wait()
        assert ended.returncode == 0, ended.stderr
        assert "FAILED" not in ended.stderr
    runs = [path for path in (tmp_path / "sweep").iterdir() if path.is_dir()]
    assert len(runs) == 3
    for run in runs:
        assert run_state(run) is RunState.DONE
        assert [record["step"] for record in records_of(run)] == list(range(4))
        assert not list(run.glob("attempt-*"))
    assert len(json.loads((tmp_path / "sweep" / "sweep.json").read_text(encoding="utf-8"))["jobs"]) == 3


def test_runs_start_in_new_interpreters_once_this_process_has_used_a_gpu(monkeypatch):
    """CUDA does not survive a fork; a notebook may have trained before it launches a sweep."""
    assert [slot.fork for slot in local_slots(2)] == [FORKS, FORKS]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert [slot.fork for slot in local_slots(2)] == [False, False]
