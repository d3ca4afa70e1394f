"""Elastic workers on one sweep directory: killed, frozen, told to leave; each run is done once."""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.erm import ERM
from domainbed.sweep import process, worker
from domainbed.sweep.devices import Slot
from domainbed.sweep.job import Job
from domainbed.sweep.local import run_commands
from domainbed.sweep.manifest import add_to_manifest, read_manifest
from domainbed.sweep.worker import SweepQueue, sweep_jobs, work
from domainbed.training import claims
from domainbed.training.claims import latest_claim
from domainbed.training.run_state import RunState, failure_count, failure_reason, run_state


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    """Threads of workers that share the cores of a test machine would wait for each other."""
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")


@pytest.fixture
def ready(sweep):
    """`ready(*flags)`: a sweep of three runs, if the flags say nothing else, that waits for workers."""
    return lambda *flags: sweep("launch", *flags, "--command_launcher", "dummy", "--quiet")


@pytest.fixture
def start_work(start_script):
    """`start_work(*flags)`: a worker with one slot, which is killed at the end if it is still there."""
    started = []

    def start(*flags):
        started.append(start_script("sweep", "work", "--output_dir", "sweep", "--workers", 1, *flags))
        return started[-1]

    yield start
    for each in started:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            if os.waitpid(each.pid, os.WNOHANG)[0] == 0:
                kill_with_runs(each.pid)
                each.wait()


def runs_in(sweep_dir):
    return [path for path in sweep_dir.iterdir() if path.is_dir()]


def parent_of(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    except OSError:
        return None


def kill_with_runs(pid):
    """As a machine does that loses its power."""
    os.kill(pid, signal.SIGSTOP)
    children = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdecimal()]
    for each in (*(child for child in children if parent_of(child) == pid), pid):
        os.kill(each, signal.SIGKILL)


def test_ten_workers_of_which_three_are_killed_do_each_run_once(
    tmp_path, ready, start_work, wait_until, records_of
):
    ready("--n_trials", 20, "--steps", 1, "--evaluate", "selection")
    runs = runs_in(tmp_path / "sweep")
    assert len(runs) == 60
    workers = {each.pid: each for each in (start_work() for _ in range(10))}
    draws = random.Random(0)
    hit = set()
    for _ in range(3):
        time.sleep(draws.random())

        def one_at_work():
            owners = [(path, latest_claim(path)[1]) for path in runs if run_state(path) is RunState.RUNNING]
            found = [(path, parent_of(owner["pid"])) for path, owner in owners if owner]
            return [(path, pid) for path, pid in found if pid in workers]

        path, pid = draws.choice(wait_until(one_at_work))
        kill_with_runs(pid)
        assert workers.pop(pid).wait().returncode == -signal.SIGKILL
        hit.add(path)
    ends = [each.wait() for each in workers.values()]
    assert [end.returncode for end in ends] == [0] * 7, ends
    for run in runs:
        assert run_state(run) is RunState.DONE
        assert [record["step"] for record in records_of(run)] == [0]
        assert not list(run.glob("claim-*"))
    # A worker has one slot: only what was killed may have begun twice.
    assert {path.parent for path in (tmp_path / "sweep").glob("*/attempt-*")} <= hit


class Flaky(ERM):
    """Fails until it was begun as often as `good` says."""

    attempts = Path()
    good = 3

    def __init__(self, *args):
        super().__init__(*args)
        with self.attempts.open("a") as file:
            file.write("begun\n")

    def update(self, minibatches, unlabeled=None):
        if self.begun() < self.good:
            raise RuntimeError("not yet")
        return super().update(minibatches, unlabeled)

    @classmethod
    def begun(cls):
        return len(cls.attempts.read_text().splitlines()) if cls.attempts.exists() else 0


class Deaf(ERM):
    """Its update does not end."""

    def update(self, minibatches, unlabeled=None):
        time.sleep(600)


@pytest.fixture
def flaky(tmp_path, monkeypatch):
    """Flags of a sweep of one flaky run."""
    monkeypatch.setattr(Flaky, "attempts", tmp_path / "attempts")
    REGISTRY["Flaky"] = Flaky
    yield ("--algorithms", "Flaky", "--test_envs", 0, "--steps", 2)
    del REGISTRY["Flaky"]


def test_a_launch_tries_failed_runs_again_if_asked(tmp_path, sweep, flaky):
    first = sweep("launch", *flaky, "--retries", 1)
    assert (first.returncode, Flaky.begun()) == (1, 2)
    assert "RuntimeError: not yet" in first.stderr
    assert "1 of 1 runs failed" in first.stderr
    assert failure_count(runs_in(tmp_path / "sweep")[0]) == 2
    second = sweep("launch", *flaky, "--retries", 1)
    assert (second.returncode, Flaky.begun()) == (0, 3)


def test_workers_count_the_failures_of_all(tmp_path, ready, start_work, flaky):
    ready(*flaky)
    for flags, status, begun in (([], 1, 1), ([], 1, 1), (["--retries", 1], 1, 2), (["--retries", 2], 0, 3)):
        ended = start_work(*flags).wait()
        assert (ended.returncode, Flaky.begun()) == (status, begun)
    assert run_state(runs_in(tmp_path / "sweep")[0]) is RunState.DONE


def test_bad_usage_is_not_tried_again(tmp_path):
    command = (
        f"python -m domainbed.scripts.train --dataset Debug28 --algorithm AgrSun --output_dir {tmp_path}/a"
    )
    assert run_commands([command], [Slot()], retries=3) == [2]
    assert failure_count(tmp_path / "a") == 1
    args = {"dataset": "Debug28", "algorithm": "AgrSun", "test_envs": [0], "hparams_seed": 0}
    job = Job(args, str(tmp_path / "sweep"))
    (tmp_path / "sweep").mkdir()
    add_to_manifest(tmp_path / "sweep", {job.name: args}, ())
    assert [each.name for each in work(tmp_path / "sweep", [Slot()], retries=3)] == [job.name]
    assert failure_count(Path(job.output_dir)) == 1


def test_a_run_past_its_time_limit_goes_on_at_the_next_launch(tmp_path, sweep):
    flags = ("--test_envs", 0, "--checkpoint_freq", 100_000, "--steps", 100_000)
    limited = sweep("launch", *flags, "--time_limit", 0.05, "--retries", 2)
    assert limited.returncode == 3, limited.stderr
    assert "1 runs were stopped (time limit or signal)." in limited.stdout
    assert "FAILED" not in limited.stderr
    (run,) = runs_in(tmp_path / "sweep")
    assert run_state(run) is RunState.PREEMPTED
    assert (run / "checkpoint.pt").exists()
    again = sweep("launch", *flags, "--time_limit", 0.05)
    assert "Restarting 1 incomplete jobs: 0 failed, 1 were stopped." in again.stdout
    assert "Goes on after " in (run / "launch.log").read_text(encoding="utf-8")


def test_what_does_not_leave_in_time_is_killed_and_counts_as_preempted(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.3)
    REGISTRY["Deaf"] = Deaf
    command = (
        "python -m domainbed.scripts.train --dataset Debug28 --algorithm Deaf "
        f"--hparams '{{\"batch_size\": 8}}' --output_dir {tmp_path}/a"
    )
    try:
        deaf_too = "trap '' TERM; while :; do sleep 0.05; done"
        assert run_commands([command, deaf_too], [Slot()] * 2, retries=2, time_limit=0.1) == [3, 3]
    finally:
        del REGISTRY["Deaf"]
    assert run_state(tmp_path / "a") is RunState.PREEMPTED
    assert not failure_reason(tmp_path / "a")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_told_to_leave_its_runs_write_checkpoints_first(
    tmp_path, ready, start_work, at_work, wait_until, records_of, number
):
    ready("--steps", 40, "--checkpoint_freq", 20, "--evaluate", "selection", "--test_envs", 0)
    leaving = start_work()
    (path,) = wait_until(at_work).values()
    leaving.send_signal(number)
    ended = leaving.wait()
    assert ended.returncode == 3
    assert ended.stderr.splitlines()[-1] == (
        f"error: Stopped by {number.name}. Run the same command to resume from the checkpoint."
    )
    assert run_state(path) is RunState.PREEMPTED
    assert (path / "checkpoint.pt").exists()
    assert start_work().wait().returncode == 0
    assert [record["step"] for record in records_of(path)] == [0, 20, 39]
    assert not list(path.glob("attempt-*"))


def test_a_frozen_worker_loses_its_run_and_counts_it_as_done_by_another(
    tmp_path, ready, start_work, at_work, wait_until, records_of, monkeypatch
):
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr(claims, "STALE_SECONDS", 2.0)
    monkeypatch.setattr(claims, "WATCH_SECONDS", 1.0)
    ready("--steps", 30, "--checkpoint_freq", 10, "--evaluate", "selection", "--test_envs", 0)
    frozen = start_work()
    ((run_pid, path),) = wait_until(at_work).items()
    for pid in (frozen.pid, run_pid):
        os.kill(pid, signal.SIGSTOP)
    assert run_state(path) is RunState.RUNNING
    assert start_work().wait().returncode == 0
    assert run_state(path) is RunState.DONE
    before = records_of(path)
    for pid in (frozen.pid, run_pid):
        os.kill(pid, signal.SIGCONT)
    assert frozen.wait().returncode == 0
    assert records_of(path) == before
    assert [record["step"] for record in before] == [0, 10, 20, 29]


def test_workers_wait_for_what_others_do(tmp_path, ready, start_work, at_work, wait_until):
    ready("--steps", 40, "--checkpoint_freq", 10, "--test_envs", 0)
    first = start_work()
    (path,) = wait_until(at_work).values()
    second = start_work()
    ended = second.wait()
    assert ended.returncode == 0
    assert run_state(path) is RunState.DONE
    assert first.wait().returncode == 0
    assert "1/1" in ended.stderr


def test_workers_begin_at_different_places(tmp_path, monkeypatch):
    args = {"dataset": "Debug28", "algorithm": "ERM", "test_envs": [0], "hparams_seed": 0}
    jobs = [Job(args | {"seed": seed}, str(tmp_path)) for seed in range(7)]
    add_to_manifest(tmp_path, {job.name: job.train_args for job in jobs}, ())
    orders = []
    for place in range(7):
        monkeypatch.setattr(worker.secrets, "randbelow", lambda below, place=place: place % below)
        queue = SweepQueue(tmp_path, retries=0)
        orders.append([queue.take().number for _ in range(7)])
        assert queue.take() is None
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert len({order[0] for order in orders}) == 7


def test_a_directory_without_a_sweep_is_refused(start_script, tmp_path):
    ended = start_script("sweep", "work", "--output_dir", "nowhere").wait()
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: nowhere contains no sweep (no sweep.json); use the --output_dir")
    ended = start_script("sweep", "work").wait()
    assert ended.stderr == "error: work needs the sweep directory: give --output_dir or --config.\n"


def test_the_jobs_of_a_sweep_keep_their_names(tmp_path, ready):
    ready()
    names = sorted(read_manifest(tmp_path / "sweep").jobs)
    assert [job.name for job in sweep_jobs(tmp_path / "sweep")] == names
