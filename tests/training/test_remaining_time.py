"""The expected end of a run, given once."""

import re
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbed.training import remaining_time
from domainbed.training.api import train
from domainbed.training.config import TrainConfig
from domainbed.training.remaining_time import RemainingTime

LINE = re.compile(r"Expected end: (.*), in (.*), after ([\d,]+) more updates and ([\d,]+) evaluations\.")


def simulated(n_steps, freq, an_update, an_evaluation, start=0):
    """Each line about a run of these times, with the updates done and the seconds that then are left."""
    now = 0.0
    remaining = RemainingTime(n_steps, freq, clock=lambda: now)
    printed = []
    for updates in range(start + 1, n_steps + 1):
        now += an_update
        step = updates - 1
        line = remaining.line(updates)
        if line:
            printed.append((line, updates, now))
        if step % freq == 0 or updates == n_steps:
            now += an_evaluation
            remaining.evaluated(updates, an_evaluation)
    return [(line, updates, now - at) for line, updates, at in printed]


@given(st.integers(10, 300), st.integers(1, 120), st.floats(0.01, 20), st.floats(0, 100), st.integers(0, 5))
def test_the_end_of_a_run_at_constant_speed_is_given_exactly_and_once(
    n_steps, freq, update, evaluation, start
):
    printed = simulated(n_steps, freq, update, evaluation, start)
    assert len(printed) <= 1
    for line, updates, left in printed:
        end, _, more, _ = LINE.fullmatch(line).groups()
        assert int(more) == n_steps - updates
        expected = datetime.now() + timedelta(seconds=left)
        assert abs(datetime.strptime(end, "%Y-%m-%d %H:%M") - expected) <= timedelta(seconds=61)


def test_an_hours_run_is_given_its_end_within_seconds():
    ((line, updates, left),) = simulated(n_steps=1001, freq=300, an_update=3.0, an_evaluation=60.0)
    assert updates == 4
    assert left == 997 * 3 + 4 * 60
    assert LINE.fullmatch(line).groups()[1:] == ("53 min 51 s", "997", "4")


@pytest.mark.parametrize(
    "run",
    [
        {"n_steps": 300, "an_update": 0.01},  # over before an estimate is worth anything
        {"n_steps": 4, "an_update": 100.0},  # no update is left when three are measured
        {"n_steps": 700, "an_update": 0.02},  # the rest takes less than ten seconds
    ],
)
def test_short_runs_and_rests_are_not_given(run):
    assert simulated(freq=1000, an_evaluation=0.1, **run) == []


def test_a_run_prints_its_expected_end_between_its_records(tmp_path, capsys, monkeypatch):
    for name in ("LEAST_SECONDS", "WORTH_SAYING"):
        monkeypatch.setattr(remaining_time, name, 0.0)
    hparams = '{"batch_size": 4}'
    train(
        TrainConfig(dataset="Debug28", steps=9, checkpoint_freq=6, hparams=hparams, output_dir=str(tmp_path))
    )
    lines = capsys.readouterr().out.splitlines()
    (printed,) = [number for number, line in enumerate(lines) if LINE.fullmatch(line)]
    assert lines[printed].endswith("after 5 more updates and 2 evaluations.")
    assert len(lines[printed - 1].split()) == len(lines[printed + 1].split())  # rows of records
    assert "Expected end" in (tmp_path / "out.txt").read_text()
