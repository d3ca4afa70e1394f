"""Workers that share a sweep directory and are killed, frozen or stopped. Each run is done once."""

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
    """One thread per worker: workers that share the cores of a test machine would slow each other down."""
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")


@pytest.fixture
def ready(sweep):
    """`ready(*flags)`: a sweep that waits for workers, by default with three runs."""
    return lambda *flags: sweep("launch", *flags, "--command_launcher", "dummy", "--quiet")


@pytest.fixture
def start_work(start_script):
    """`start_work(*flags)`: a worker with one slot. It is killed at the end of the test."""
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
    """Kill a worker and its runs at the same moment, like a power failure."""
    os.kill(pid, signal.SIGSTOP)
    children = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdecimal()]
    for each in (*(child for child in children if parent_of(child) == pid), pid):
        os.kill(each, signal.SIGKILL)


@pytest.mark.slow
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

        def running():
            owners = [(path, latest_claim(path)[1]) for path in runs if run_state(path) is RunState.RUNNING]
            found = [(path, parent_of(owner["pid"])) for path, owner in owners if owner]
            return [(path, pid) for path, pid in found if pid in workers]

        path, pid = draws.choice(wait_until(running))
        kill_with_runs(pid)
        assert workers.pop(pid).wait().returncode == -signal.SIGKILL
        hit.add(path)
    ends = [each.wait() for each in workers.values()]
    assert [end.returncode for end in ends] == [0] * 7, ends
    for run in runs:
        assert run_state(run) is RunState.DONE
        assert [record["step"] for record in records_of(run)] == [0]
        assert not list(run.glob("claim-*"))
    # A worker has one slot, so only the killed runs may have been started twice.
    assert {path.parent for path in (tmp_path / "sweep").glob("*/attempt-*")} <= hit


class Flaky(ERM):
    """Fails until it is started for the `good`-th time."""

    attempts = Path()
    good = 3

    def __init__(self, *args):
        super().__init__(*args)
        with self.attempts.open("a") as file:
            file.write("started\n")

    def update(self, minibatches, unlabeled=None):
        if self.started() < self.good:
            raise RuntimeError("not yet")
        return super().update(minibatches, unlabeled)

    @classmethod
    def started(cls):
        return len(cls.attempts.read_text().splitlines()) if cls.attempts.exists() else 0


class Deaf(ERM):
    """Ignores requests to stop: its update does not end."""

    def update(self, minibatches, unlabeled=None):
        time.sleep(600)


@pytest.fixture
def flaky(tmp_path, monkeypatch):
    """Flags of a sweep with one flaky run."""
    monkeypatch.setattr(Flaky, "attempts", tmp_path / "attempts")
    REGISTRY["Flaky"] = Flaky
    yield ("--algorithms", "Flaky", "--test_envs", 0, "--steps", 2)
    del REGISTRY["Flaky"]


def test_a_launch_retries_failed_runs(tmp_path, sweep, flaky):
    first = sweep("launch", *flaky, "--retries", 1)
    assert (first.returncode, Flaky.started()) == (1, 2)
    assert "RuntimeError: not yet" in first.stderr
    assert "1 of 1 runs failed" in first.stderr
    assert failure_count(runs_in(tmp_path / "sweep")[0]) == 2
    second = sweep("launch", *flaky, "--retries", 1)
    assert (second.returncode, Flaky.started()) == (0, 3)


def test_workers_count_failures_of_other_workers(tmp_path, ready, start_work, flaky):
    ready(*flaky)
    for flags, status, started in (
        ([], 1, 1),
        ([], 1, 1),
        (["--retries", 1], 1, 2),
        (["--retries", 2], 0, 3),
    ):
        ended = start_work(*flags).wait()
        assert (ended.returncode, Flaky.started()) == (status, started)
    assert run_state(runs_in(tmp_path / "sweep")[0]) is RunState.DONE


def test_usage_errors_are_not_retried(tmp_path):
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


def test_the_next_launch_resumes_a_run_stopped_by_its_time_limit(tmp_path, sweep):
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
    assert "Resumes after " in (run / "launch.log").read_text(encoding="utf-8")


def test_a_command_that_does_not_stop_in_time_is_killed_and_counts_as_preempted(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.3)
    REGISTRY["Deaf"] = Deaf
    command = (
        "python -m domainbed.scripts.train --dataset Debug28 --algorithm Deaf "
        f"--hparams '{{\"batch_size\": 8}}' --output_dir {tmp_path}/a"
    )
    try:
        deaf_shell = "trap '' TERM; while :; do sleep 0.05; done"
        assert run_commands([command, deaf_shell], [Slot()] * 2, retries=2, time_limit=0.1) == [3, 3]
    finally:
        del REGISTRY["Deaf"]
    assert run_state(tmp_path / "a") is RunState.PREEMPTED
    assert not failure_reason(tmp_path / "a")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_runs_of_a_stopped_worker_write_checkpoints(
    tmp_path, ready, start_work, training_runs, wait_until, records_of, number
):
    ready("--steps", 400, "--checkpoint_freq", 200, "--evaluate", "selection", "--test_envs", 0)
    stopped = start_work()
    (path,) = wait_until(training_runs).values()
    stopped.send_signal(number)
    ended = stopped.wait()
    assert ended.returncode == 3
    assert ended.stderr.splitlines()[-1] == (
        f"error: Stopped by {number.name}. Run the same command to resume from the checkpoint."
    )
    assert run_state(path) is RunState.PREEMPTED
    assert (path / "checkpoint.pt").exists()
    assert start_work().wait().returncode == 0
    assert [record["step"] for record in records_of(path)] == [0, 200, 399]
    assert not list(path.glob("attempt-*"))


def test_a_frozen_worker_loses_its_run_and_counts_it_as_done(
    tmp_path, ready, start_work, training_runs, wait_until, records_of, monkeypatch
):
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr(claims, "STALE_SECONDS", 2.0)
    monkeypatch.setattr(claims, "WATCH_SECONDS", 1.0)
    ready("--steps", 300, "--checkpoint_freq", 100, "--evaluate", "selection", "--test_envs", 0)
    frozen = start_work()
    ((run_pid, path),) = wait_until(training_runs).items()
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
    assert [record["step"] for record in before] == [0, 100, 200, 299]


def test_workers_wait_for_runs_of_other_workers(tmp_path, ready, start_work, training_runs, wait_until):
    ready("--steps", 400, "--checkpoint_freq", 100, "--test_envs", 0)
    first = start_work()
    (path,) = wait_until(training_runs).values()
    second = start_work()
    ended = second.wait()
    assert ended.returncode == 0
    assert run_state(path) is RunState.DONE
    assert first.wait().returncode == 0
    assert "1/1" in ended.stderr


def test_workers_start_at_different_runs(tmp_path, monkeypatch):
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


def test_a_directory_without_a_sweep_is_rejected(start_script, tmp_path):
    ended = start_script("sweep", "work", "--output_dir", "nowhere").wait()
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: nowhere contains no sweep (no sweep.json); use the --output_dir")
    ended = start_script("sweep", "work").wait()
    assert ended.stderr == "error: work needs the sweep directory: give --output_dir or --config.\n"


def test_jobs_of_a_sweep_keep_their_names(tmp_path, ready):
    ready()
    names = sorted(read_manifest(tmp_path / "sweep").jobs)
    assert [job.name for job in sweep_jobs(tmp_path / "sweep")] == names
