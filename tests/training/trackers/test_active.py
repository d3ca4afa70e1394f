"""Trackers get the records of a run, and no failure of theirs stops it."""

from __future__ import annotations

import sys

import pytest

from domainbed.errors import UnknownName
from domainbed.sweep.flags import parse, settings_of_runs
from domainbed.sweep.job import Job
from domainbed.training.config import TrainConfig
from domainbed.training.config_checks import check_config
from domainbed.training.trackers import TRACKERS, Ending, StepwiseTracker, Tracker, tensorboard_events


@pytest.fixture
def registered():
    """`registered(name, tracker)`: register a tracker for the duration of the test."""
    names = []

    def register(name, tracker):
        TRACKERS.register(name)(tracker)
        names.append(name)

    yield register
    for name in names:
        del TRACKERS[name]


@pytest.mark.parametrize("method", ["__init__", "update", "close"])
def test_a_tracker_that_raises_is_off_after_one_warning_and_the_run_finishes(
    method, registered, attempt, caplog, tmp_path
):
    calls = []

    class Broken(Tracker):
        def update(self, records):
            calls.append("update")

        def close(self, ending):
            calls.append("close")

    def fail(self, *args):
        calls.append(method)
        raise RuntimeError("two\nlines \x1b[31m")

    setattr(Broken, method, fail)
    registered("broken", Broken)
    assert len(attempt(["broken", "tensorboard"])) == 4
    (warning,) = [line for line in caplog.messages if "broken" in line]
    assert warning == "tracker broken is off: two lines \\x1b[31m (the run continues without it)"
    assert calls.count(method) == 1
    assert ("close" in calls) == (method == "close")
    assert (tmp_path / "run" / tensorboard_events.NAME).exists()


def test_a_tracker_learns_how_training_ended(registered, attempt):
    endings = []

    class Noting(Tracker):
        def update(self, records):
            assert [record["step"] for record in records] == list(range(0, records[-1]["step"] + 1, 2))

        def close(self, ending):
            endings.append(ending)

    registered("noting", Noting)
    attempt(["noting"], stop_at=3)
    attempt(["noting"], crash_at=6)
    attempt(["noting"])
    assert endings == [Ending.STOPPED, Ending.FAILED, Ending.FINISHED]


def test_a_tracker_of_a_plugin_gets_each_step_once_and_catches_up_after_a_failure(registered, attempt):
    logged, failing = [], [2]

    class Kept(StepwiseTracker):
        def start(self, run_id):
            return run_id or "first"

        def log(self, step, values):
            if step in failing:
                failing.remove(step)
                raise OSError("the network is down")
            logged.append((self.run_id, step, "training/loss" in values))

    registered("kept", Kept)
    attempt(["kept"], stop_at=4)
    assert logged == [("first", 0, True)]
    attempt(["kept"], crash_at=6)
    attempt(["kept"])
    assert logged == [("first", step, True) for step in (0, 2, 4, 6)]


def test_a_process_that_is_killed_while_it_logs_a_step_does_not_log_it_again(
    registered, attempt, monkeypatch
):
    class Killed(BaseException):
        """What no code catches, as nothing catches SIGKILL."""

    logged = []

    class Kept(StepwiseTracker):
        def start(self, run_id):
            return "id"

        def log(self, step, values):
            logged.append(step)
            if step == 4:
                raise Killed

    registered("kept", Kept)
    attempt(["kept"], stop_at=3)
    with pytest.raises(Killed):
        attempt(["kept"])
    attempt(["kept"])
    assert logged == [0, 2, 4, 6]


def test_a_tracker_that_is_added_later_gets_the_earlier_records_too(attempt, tmp_path, shown):
    attempt(None, stop_at=3)
    attempt(["tensorboard"])
    assert {step for _, step in shown(tmp_path / "run")} == {0, 2, 4, 6}


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_missing_package_is_one_warning_with_what_to_install(name, attempt, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)  # as where it is not installed
    attempt([name], stop_at=1)
    (warning,) = [line for line in caplog.messages if name in line]
    assert f"pip install 'domainbed-gs[{name}]'" in warning


def test_an_unwritable_event_file_is_one_warning(attempt, caplog, tmp_path):
    attempt(None, stop_at=1)
    (tmp_path / "run" / tensorboard_events.NAME).mkdir()
    assert len(attempt(["tensorboard"])) == 4
    (warning,) = [line for line in caplog.messages if "tensorboard" in line]
    assert "Is a directory" in warning


def test_an_unknown_tracker_is_refused_before_the_run():
    with pytest.raises(UnknownName, match=r"Tracker not found: tensorbord\nDid you mean tensorboard"):
        check_config(TrainConfig(dataset="Debug28", trackers=["tensorbord"]))


def test_trackers_change_no_number(attempt, tmp_path):
    def numbers(records):
        changing = ("step_time", "args", "mem_gb")
        return [{k: v for k, v in record.items() if k not in changing} for record in records]

    tracked = numbers(attempt(["tensorboard"]))
    assert numbers(attempt(None, restart=True)) == tracked


def test_a_sweep_passes_trackers_on_and_names_its_runs_as_without_them():
    def jobs(*flags):
        (settings,) = settings_of_runs(parse(["launch", *flags]))
        args = {"dataset": "Debug28", "algorithm": "ERM", "test_envs": [0]}
        return Job({**args, **{k: v for k, v in settings.items() if v is not None}}, "sweep")

    with_them = jobs("--trackers", "mlflow", "wandb")
    assert "--trackers mlflow wandb" in with_them.command_str
    assert with_them.name == jobs().name
