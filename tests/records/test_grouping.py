from __future__ import annotations

import json

import pytest

from domainbed.errors import UsageError
from domainbed.records.grouping import get_grouped_records, load_records
from domainbed.records.query import Q


def record(step=0, trial=0, test_envs=(0,)):
    args = {"trial_seed": trial, "dataset": "VLCS", "algorithm": "ERM", "hparams_seed": 0}
    return {"args": args | {"test_envs": list(test_envs)}, "step": step}


def test_load_records_in_order_of_names(tmp_path, capsys):
    for name, step in (("b", 1), ("c", 2), ("a", 0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.jsonl").write_text(json.dumps(record(step)) + "\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "results.txt").write_text("no folder")
    records = load_records(str(tmp_path))
    assert isinstance(records, Q)
    assert records.select("step") == [0, 1, 2]
    assert capsys.readouterr().out == ""


def test_newline_at_the_end_is_not_needed(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.jsonl").write_text(json.dumps(record(7)))
    assert load_records(tmp_path).select("step") == [7]


def test_a_folder_called_results_jsonl_is_named(tmp_path, caplog):
    (tmp_path / "run" / "results.jsonl").mkdir(parents=True)
    assert load_records(tmp_path) == []
    assert f"cannot be read are left out: {tmp_path}/run/results.jsonl (Is a directory)" in caplog.text


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
