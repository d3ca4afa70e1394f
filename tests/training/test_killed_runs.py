"""A run that is killed, or stopped by a signal, resumes and ends with the same numbers."""

import random
import signal
import time
from pathlib import Path

import pytest

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.erm import ERM
from domainbed.training.run_state import RunState, run_state
from domainbed.training.stop_requests import AFTER_STEP


@pytest.fixture
def kill_repeatedly(start_script, wait_until, updates_in):
    """`kill_repeatedly(flags, kills)`: kill and relaunch a run, then let it finish.

    Returns: for each kill, the updates in the checkpoint, and the updates and milliseconds waited for.
    """

    def run(flags, kills):
        (path,) = (flag.removeprefix("--output_dir=") for flag in flags if flag.startswith("--output_dir="))
        draws, path = random.Random(0), Path(path)
        rows = []
        while len(rows) < kills:
            worker = start_script("train", *flags)
            before = updates_in(path)
            # Few enough updates that the run does not finish before the last kill. The time falls within one.
            updates, milliseconds = draws.randrange(1, 100 // kills + 1), draws.randrange(10)
            wait_until(lambda: updates_in(path) >= before + updates)  # noqa: B023
            time.sleep(milliseconds / 1000)
            worker.send_signal(signal.SIGKILL)
            assert worker.wait().returncode == -signal.SIGKILL
            rows.append((updates_in(path), updates, milliseconds))
            assert rows[-1][0] > before
            assert run_state(path) is RunState.INTERRUPTED
        ended = start_script("train", *flags).wait()
        assert ended.returncode == 0, ended.stderr
        return rows

    return run


def test_five_kills_change_no_number(kill_repeatedly, flags, tmp_path, straight, assert_same):
    kill_repeatedly(flags(tmp_path / "run"), 5)
    assert_same(tmp_path / "run", straight)
    assert not list((tmp_path / "run").glob("checkpoint*"))
    assert not list((tmp_path / "run").glob("attempt-*"))


@pytest.mark.slow
def test_fifty_kills_change_no_number(kill_repeatedly, flags, tmp_path, straight, assert_same):
    print(kill_repeatedly(flags(tmp_path / "run"), 50))
    assert_same(tmp_path / "run", straight)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 3), (signal.SIGUSR1, 3), (signal.SIGINT, 130)]
)
def test_a_signal_stops_the_run_with_a_checkpoint_and_it_resumes(
    start_script, wait_until, flags, tmp_path, straight, assert_same, number, status, updates_in
):
    path = tmp_path / "run"
    worker = start_script("train", *flags(path, checkpoint_every=60))
    wait_until((path / "results.jsonl").exists)
    worker.send_signal(number)
    ended = worker.wait()
    assert ended.returncode == status
    assert (AFTER_STEP in ended.stderr) == (number == signal.SIGINT)
    stopped = RunState.INTERRUPTED if number == signal.SIGINT else RunState.PREEMPTED
    assert run_state(path) is stopped
    done = updates_in(path)
    assert 0 < done < 200
    ended = start_script("train", *flags(path, checkpoint_every=60)).wait()
    assert ended.returncode == 0, ended.stderr
    assert f"Resumes after {done} of 200 updates." in ended.stdout
    assert_same(path, straight)


class Sleeping(ERM):
    """An update takes ten minutes."""

    def update(self, minibatches, unlabeled=None):
        Path("in_update").touch()
        # Python answers a signal that arrives just before a sleep, once that sleep is over.
        for _ in range(60_000):
            time.sleep(0.01)


def test_ctrl_c_is_answered_during_a_step_and_a_second_one_ends_it(
    start_script, wait_until, tmp_path, monkeypatch
):
    monkeypatch.setitem(REGISTRY, "Sleeping", Sleeping)
    worker = start_script("train", "--dataset", "Debug28", "--algorithm", "Sleeping", "--output_dir", "run")
    wait_until((tmp_path / "in_update").exists)
    worker.send_signal(signal.SIGINT)
    stderr = worker.ends[2]
    wait_until(lambda: AFTER_STEP in stderr.read_text())
    assert worker.is_running()
    worker.send_signal(signal.SIGINT)
    ended = worker.wait()
    assert ended.returncode == 130
    last = "Interrupted. Run the same command to resume from the last checkpoint, if there is one."
    assert [line for line in ended.stderr.splitlines() if line] == [AFTER_STEP, last]
    assert run_state(tmp_path / "run") is RunState.INTERRUPTED


def test_signals_that_arrive_while_the_run_stops_do_not_keep_it_from_recording_why(
    start_script, wait_until, flags, tmp_path
):
    # Slurm signals a whole job step while the worker in it signals its runs; and Linux signals a run once for
    # each thread of the sweep that dies after its main thread (prctl(2), PR_SET_PDEATHSIG).
    path = tmp_path / "run"
    worker = start_script("train", *flags(path))
    wait_until((path / "results.jsonl").exists)
    while worker.is_running():
        worker.send_signal(signal.SIGTERM)
    worker.wait()
    assert run_state(path) is RunState.PREEMPTED
