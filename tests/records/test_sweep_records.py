from __future__ import annotations

import json
import math

import pytest

from domainbed.errors import UsageError
from domainbed.records.query import Q
from domainbed.records.sweep_records import (
    by_run,
    get_grouped_records,
    load_records,
    read_sweep_records,
    to_frame,
)


def record(step=0, trial=0, test_envs=(0,)):
    args = {"trial_seed": trial, "dataset": "VLCS", "algorithm": "ERM", "hparams_seed": 0}
    return {"args": args | {"test_envs": list(test_envs)}, "step": step}


def test_load_records_sorts_runs_by_name(tmp_path, capsys):
    for name, step in (("b", 1), ("c", 2), ("a", 0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.jsonl").write_text(json.dumps(record(step)) + "\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "results.txt").write_text("not a folder")
    records = load_records(str(tmp_path))
    assert isinstance(records, Q)
    assert records.select("step") == [0, 1, 2]
    assert capsys.readouterr().out == ""


def test_a_missing_newline_at_the_end(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.jsonl").write_text(json.dumps(record(7)))
    assert load_records(tmp_path).select("step") == [7]


def test_a_folder_named_results_jsonl_is_skipped_with_a_warning(tmp_path, caplog):
    (tmp_path / "run" / "results.jsonl").mkdir(parents=True)
    assert load_records(tmp_path) == []
    assert (
        f"skipped results that cannot be read: {tmp_path}/run/results.jsonl (Is a directory)" in caplog.text
    )


def test_missing_directory(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        load_records(tmp_path / "nowhere")


def test_grouped_records():
    one, two, three = record(0), record(1, test_envs=(2, 0)), record(2, trial=1)
    groups = get_grouped_records(Q([one, two, three]))
    assert groups == [
        {"trial_seed": 0, "dataset": "VLCS", "algorithm": "ERM", "test_env": 0, "records": Q([one, two])},
        {"trial_seed": 0, "dataset": "VLCS", "algorithm": "ERM", "test_env": 2, "records": Q([two])},
        {"trial_seed": 1, "dataset": "VLCS", "algorithm": "ERM", "test_env": 0, "records": Q([three])},
    ]


def test_finished_runs(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.jsonl").write_text(json.dumps(record()) + "\n{\n")
    (tmp_path / "b" / "done").write_text("done")
    sweep = read_sweep_records(tmp_path)
    assert [(run.path.name, run.finished) for run in sweep.runs] == [("a", False), ("b", True)]
    assert [run.path.name for run in sweep.finished().runs] == ["b"]
    assert sweep.finished().warnings == sweep.warnings
    assert len(sweep.records()) == 2


def test_by_run_splits_where_args_change():
    records = [record(0), record(1), record(0, trial=1), record(2)]
    assert [(args["trial_seed"], [each["step"] for each in own]) for args, own in by_run(records)] == [
        (0, [0, 1]),
        (1, [0]),
        (0, [2]),
    ]
    assert [args for args, _ in by_run(records)] == [records[i]["args"] for i in (0, 2, 3)]


def test_frame_has_one_row_for_each_record_and_flat_columns():
    records = [
        {"args": {"test_envs": [1], "seed": 3}, "hparams": {"lr": 0.1}, "step": 0, "loss": 2.0},
        {"args": {"test_envs": [2], "seed": 3}, "hparams": {"lr": 0.1}, "step": 1, "sizes": {"env0_in": 9}},
    ]
    frame = to_frame(records)
    assert set(frame) == {"args.test_envs", "args.seed", "hparams.lr", "step", "loss", "sizes.env0_in"}
    assert list(frame["args.test_envs"]) == [[1], [2]]
    assert list(frame["step"]) == [0, 1]
    assert math.isnan(frame["loss"][1])
    assert frame["sizes.env0_in"][1] == 9
    assert to_frame([]).empty
