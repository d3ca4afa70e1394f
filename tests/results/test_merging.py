"""Two-stage runs of train_autolr."""

from __future__ import annotations

import json

import pytest

from domainbed.scripts import collect_results, list_top_hparams


def auto_lr_record(seed, step, holdout, **accuracies):
    args = {"dataset": "VLCS", "algorithm": "ERMPlusPlus", "trial_seed": 0, "hparams_seed": seed}
    args |= {"test_envs": [0], "holdout_fraction": holdout, "hparams": None, "data_dir": "/d"}
    return {"args": args, "hparams": {}, "step": step, **accuracies}


def test_auto_lr_merges_the_two_stages(tmp_path, capsys):
    """Seed 1 has the better last out-accuracies: its second stage is reported."""
    for seed, out, final in ((0, 0.6, 0.9), (1, 0.7, 0.8125)):
        (tmp_path / str(seed)).mkdir()
        stages = [
            auto_lr_record(seed, 0, 0.2, env0_in_acc=0.1, env0_out_acc=0.9, env1_out_acc=0.99),
            auto_lr_record(seed, 100, 0.2, env0_in_acc=0.2, env0_out_acc=0.9, env1_out_acc=out),
            auto_lr_record(seed, 0, 0.0, fd_env0_in_acc=0.3),
            auto_lr_record(seed, 100, 0.0, fd_env0_in_acc=final),
        ]
        text = "".join(json.dumps(record) + "\n" for record in stages)
        (tmp_path / str(seed) / "results.jsonl").write_text(text)
    collect_results.main(["--input_dir", str(tmp_path), "--auto_lr"])
    lines = capsys.readouterr().out.splitlines()
    assert "auto lr training-domain validation set" in lines[2]
    assert lines[4].split()[:4] == ["ERMPlusPlus", "81.2", "+/-", "0.0"]
    assert sum(line.startswith("--------") for line in lines) == 2
    arguments = [
        "--dataset",
        "VLCS",
        "--algorithm",
        "ERMPlusPlus",
        "--test_env",
        "0",
        "--selection",
        "autolr",
    ]
    list_top_hparams.main(["--input_dir", str(tmp_path), *arguments])
    listed = [line.strip() for line in capsys.readouterr().out.splitlines() if "val_acc" in line]
    assert listed == ["{'val_acc': 0.7, 'test_acc': 0.8125}", "{'val_acc': 0.6, 'test_acc': 0.9}"]


def test_remove_key_and_recursive_freeze():
    original = {"a": 1, "b": 2}
    assert collect_results.remove_key(original, "a") == {"b": 2}
    assert original == {"a": 1, "b": 2}
    with pytest.raises(KeyError):
        collect_results.remove_key(original, "c")
    frozen = collect_results.recursive_freeze({"a": [1, {"b": 2}], "c": {3, 4}})
    assert frozen == frozenset({("a", (1, frozenset({("b", 2)}))), ("c", frozenset({3, 4}))})
    assert hash(frozen) == hash(collect_results.recursive_freeze({"c": {4, 3}, "a": [1, {"b": 2}]}))


def test_merge_records_keeps_order_and_inputs():
    records = [
        auto_lr_record(seed, step, 0.2 * (1 - stage))
        for stage in (0, 1)
        for seed in (2, 1)
        for step in (0, 7)
    ]
    before = json.dumps(records)
    merged = collect_results.merge_records(records)
    assert [(r["args"]["hparams_seed"], r["step"], r["args"]["holdout_fraction"]) for r in merged] == [
        (2, 7, 0.0),
        (1, 7, 0.0),
    ]
    assert json.dumps(records) == before
