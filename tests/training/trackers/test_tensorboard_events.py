"""Events for TensorBoard have the numbers of results.jsonl, and every step once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from domainbed.records.results_file import read_records
from domainbed.training import train_command
from domainbed.training.trackers import TrackedRun, tensorboard_events


def write_records(folder, steps, loss=1.0):
    lines = [
        {"step": step, "step_time": 0.5, "loss": loss / (step + 1), "env0_in_acc": 0.25, "args": ARGS}
        for step in steps
    ]
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def update(folder):
    """As a run in `folder` does after each record."""
    tracker = tensorboard_events.TensorBoard("tensorboard", TrackedRun(folder, {}, {}))
    tracker.update(read_records(folder / "results.jsonl").records)


ARGS = {"trial_seed": 0, "dataset": "VLCS", "algorithm": "ERM", "hparams_seed": 0, "test_envs": [0]}


def test_new_records_are_appended_and_changed_records_rewrite_the_file(tmp_path, shown):
    path = tmp_path / tensorboard_events.NAME
    write_records(tmp_path, [0])
    update(tmp_path)
    first, inode = path.read_bytes(), path.stat().st_ino
    write_records(tmp_path, [0, 10])
    update(tmp_path)
    assert path.read_bytes().startswith(first)
    assert path.stat().st_ino == inode  # a running TensorBoard keeps the file open
    update(tmp_path)
    assert shown(tmp_path)["training/loss", 10].value == pytest.approx(1 / 11)
    write_records(tmp_path, [0, 10, 20], loss=2.0)
    update(tmp_path)
    assert shown(tmp_path)["training/loss", 0].value == 2.0
    path.write_bytes(path.read_bytes()[:-7])  # as after a crash
    update(tmp_path)
    assert {step for tag, step in shown(tmp_path) if tag == "accuracy/env0_in_acc"} == {0, 10, 20}


def test_event_times_are_seconds_of_training(tmp_path, shown):
    write_records(tmp_path, [0, 10])
    update(tmp_path)
    assert [shown(tmp_path)["training/loss", step].wall_time for step in (0, 10)] == [0.5, 5.5]


def test_any_name_is_a_visible_tag(tmp_path, shown):
    names = ("\x1b[31m", "a\nb", "<b>$", "\udcff \ud800")
    line = {"step": 0, "step_time": 0.5, "args": ARGS} | dict.fromkeys(names, 1.0)
    (tmp_path / "results.jsonl").write_text(json.dumps(line) + "\n")
    update(tmp_path)
    assert {tag for tag, _ in shown(tmp_path)} == {
        f"training/{name}" for name in ("\\x1b[31m", "a\\nb", "<b>$", "\\xff \\ud800", "step_time")
    }


def test_upstreams_abbreviation_of_test_envs_works():
    assert train_command.build_parser().parse_args(["--te", "1", "2"]).test_envs == [1, 2]
    assert Path(tensorboard_events.NAME).match("*tfevents*")
