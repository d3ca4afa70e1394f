"""Run directories that the released version wrote: a command finds its run there, and resumes it."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from domainbed.errors import UsageError
from domainbed.training import config, run_dir
from domainbed.training.api import train
from domainbed.training.config import TrainConfig
from domainbed.training.run_dir import RunDir

OLDER = Path(__file__).parents[1] / "data" / "older_runs"
SETTINGS = {
    "dataset": "Debug28",
    "algorithm": "ERM",
    "steps": 4,
    "checkpoint_freq": 1,
    "skip_model_save": True,
    "test_envs": [1],
    "splits": "80/10/10",
    "hparams": '{"featurizer": "mlp", "mlp_width": 1, "mlp_depth": 2, "batch_size": 4}',
}
MEASURED = ("step_time", "mem_gb")


@pytest.fixture(params=["finished", "interrupted"])
def older(request, tmp_path):
    return shutil.copytree(OLDER / request.param, tmp_path / request.param)


def records(path):
    lines = (path / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def enter(path, **changes):
    """Whether the run in `path` is that with these settings, and can be resumed or is done."""
    with RunDir(path, TrainConfig(**SETTINGS).compared() | changes) as directory:
        return directory.finished or directory.checkpoint is not None


def test_the_command_of_a_finished_run_leaves_it_as_it_is(tmp_path, capsys):
    path = shutil.copytree(OLDER / "finished", tmp_path / "run")
    before = {file: file.read_bytes() for file in path.iterdir()}
    train(TrainConfig(**SETTINGS, output_dir=str(path), device="cpu"))
    assert "finished" in capsys.readouterr().out
    assert {file: file.read_bytes() for file in path.iterdir()} == before


def test_an_interrupted_run_is_resumed_with_the_numbers_of_the_finished_one(tmp_path):
    path = shutil.copytree(OLDER / "interrupted", tmp_path / "run")
    train(TrainConfig(**SETTINGS, output_dir=str(path), device="cpu"))
    assert (path / "done").exists()
    assert not list(path.glob("attempt-*"))
    for found, expected in zip(records(path), records(OLDER / "finished"), strict=True):
        newer = {name: each.value_before for name, each in config.SETTINGS.items() if each.recorded}
        assert newer | found["args"] | {"output_dir": "finished"} == newer | expected["args"]
        for key, value in expected.items():
            if key not in ("args", "loss", *MEASURED):
                assert found[key] == value, key
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)


def test_a_directory_without_a_setting_has_the_value_before_it_existed(older, monkeypatch):
    names = {"name": "colour", "choices": ("red", "blue"), "default": "red", "value_before": "blue"}
    new = dataclasses.replace(config.SETTINGS["precision"], **names)
    monkeypatch.setattr(run_dir, "SETTINGS", {**config.SETTINGS, "colour": new})
    assert enter(older, colour="blue")
    with pytest.raises(UsageError, match=r"other settings \(colour was 'blue', now 'red'\)"):
        enter(older, colour="red")


def test_a_retired_setting_is_accepted_with_the_value_that_had_no_effect(older, monkeypatch):
    content = json.loads((older / "run.json").read_text(encoding="utf-8"))
    content["settings"]["colour"] = "red"
    (older / "run.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UsageError, match=r"\(colour was 'red', and this version does not know it\)"):
        enter(older)
    monkeypatch.setattr(run_dir, "RETIRED", {"colour": "blue"})
    with pytest.raises(UsageError, match=r"\(colour was 'red', and this version does not know it\)"):
        enter(older)
    monkeypatch.setattr(run_dir, "RETIRED", {"colour": "red"})
    assert enter(older)


def test_other_settings_are_refused(older):
    with pytest.raises(UsageError, match=r"other settings \(grouping was 'domain', now 'pooled'\)"):
        enter(older, grouping="pooled")
