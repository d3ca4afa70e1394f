"""Runs that resume from damaged or foreign files, and runs whose directory was taken away."""

import json
import shutil

import pytest

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.erm import ERM
from domainbed.errors import RunError, UsageError
from domainbed.training import checkpoint, loop
from domainbed.training.run import build
from domainbed.training.run_dir import RunDir
from domainbed.training.run_state import RunState, run_state


def test_damaged_checkpoints_fall_back_to_the_previous_one_or_to_the_start(
    tmp_path, assert_same, caplog, attempt
):
    settings = {"algorithm": "AgrRand", "checkpoint_every": 0}
    attempt(tmp_path / "straight", **settings)
    for damaged, attempts in (([checkpoint.NAME], 0), ([checkpoint.NAME, checkpoint.PREVIOUS], 1)):
        path = tmp_path / str(attempts)
        attempt(path, stop_at=22, **settings)
        for name in damaged:
            (path / name).write_bytes((path / name).read_bytes()[:-100])
        attempt(path, **settings)
        assert "cannot use checkpoint" in caplog.text
        assert len(list(path.glob("attempt-*"))) == attempts
        assert_same(path, tmp_path / "straight")


def test_a_checkpoint_of_other_state_is_refused_in_one_line_and_restart_starts_over(tmp_path, attempt):
    path = tmp_path / "run"
    attempt(path, stop_at=12, algorithm="ERM")
    content = checkpoint.load(path)
    del content["algorithm"]["parts"]["optimizer"]
    checkpoint.save(path, content)
    with pytest.raises(UsageError, match=r"another version .* \('optimizer'\); .* --restart") as refused:
        attempt(path, algorithm="ERM")
    assert "\n" not in str(refused.value)
    assert (path / "results.jsonl").read_text()
    attempt(path, algorithm="ERM", restart=True)
    assert run_state(path) is RunState.DONE


class Counter(ERM):
    """ERM that counts its updates in a plain attribute."""

    def __init__(self, *args):
        super().__init__(*args)
        self.count = 0

    def update(self, minibatches, unlabeled=None):
        self.count += 1
        return {**super().update(minibatches, unlabeled), "count": float(self.count)}


def test_a_plugin_is_warned_of_a_checkpoint_that_is_too_old_to_have_its_attributes(
    tmp_path, monkeypatch, caplog, attempt
):
    monkeypatch.setitem(REGISTRY, "Counter", Counter)
    path = tmp_path / "run"
    attempt(path, stop_at=12, algorithm="Counter")
    content = checkpoint.load(path)
    done = content["updates"]
    del content["attributes"]
    checkpoint.save(path, content)
    attempt(path, algorithm="Counter")
    assert "an older version wrote the checkpoint: attributes of Counter that are not in STATE" in caplog.text
    last = json.loads((path / "results.jsonl").read_text().splitlines()[-1])
    assert last["count"] == 6 - done


def test_incomplete_and_foreign_lines_of_records_do_not_matter(tmp_path, assert_same, attempt):
    attempt(tmp_path / "straight", algorithm="ERM")
    path = tmp_path / "run"
    attempt(path, stop_at=12, algorithm="ERM")
    content = (path / "results.jsonl").read_bytes()
    (path / "results.jsonl").write_bytes(b"foreign\n" + content + b'{"step": 4, "los')
    attempt(path, algorithm="ERM")
    lines = (path / "results.jsonl").read_text().splitlines()
    assert lines.pop(0) == "foreign"
    (path / "results.jsonl").write_text("\n".join(lines))
    assert_same(path, tmp_path / "straight")


def test_missing_records_are_reported(tmp_path, attempt):
    path = tmp_path / "run"
    attempt(path, stop_at=12, algorithm="ERM")
    (path / "results.jsonl").write_text("")
    with pytest.raises(RunError, match="lacks the record of step 0"):
        attempt(path, algorithm="ERM")


def test_a_process_that_lost_its_claim_writes_nothing(tmp_path, small_config):
    """As after a hang, during which another process has taken over."""
    run = build(small_config(tmp_path))
    with RunDir(tmp_path, {}) as directory:
        directory.write_summary({}, machine={})
        before = sorted(tmp_path.iterdir())
        (tmp_path / "claim-2.json").write_text("{}")
        with pytest.raises(RunError, match="taken over"):
            loop.train(run, directory)
    assert set(tmp_path.iterdir()) == {*before, tmp_path / "claim-2.json"}


def test_a_run_whose_directory_was_deleted_says_so(tmp_path, small_config):
    run = build(small_config(tmp_path / "run"))
    with RunDir(tmp_path / "run", {}) as directory:
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(RunError, match="run was deleted while the run was at work"):
            loop.train(run, directory)
    assert not (tmp_path / "run").exists()
