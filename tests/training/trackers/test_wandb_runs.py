"""Weights & Biases, offline: its files have each step of a run once, under one id."""

from __future__ import annotations

import json
import struct

import pytest

BLOCK, HEADER = 2**15, 7
"""Bytes of a block of a .wandb file, and of the headers of the file and of each chunk (as LevelDB's logs)."""


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """W&B offline, with its files below `tmp_path`, and started anew."""
    import wandb

    for name, value in {"MODE": "offline", "DIR": tmp_path, "PROJECT": "studies"}.items():
        monkeypatch.setenv(f"WANDB_{name}", str(value))
    for name in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "own"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    wandb.teardown()
    yield
    wandb.teardown()


def entries(path):
    """The entries of a .wandb file."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, parts = path.read_bytes(), HEADER, []
    while position < len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + HEADER])
        parts.append(data[position + HEADER : position + HEADER + length])
        position += HEADER + length
        if kind in (1, 4):  # a whole entry, or its last part
            yield Record.FromString(b"".join(parts))
            parts = []


def found_in(folder):
    """For each process that wrote W&B's files in `folder`: run, {(tag, step): value}, exit status."""
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        run, history, status = None, {}, None
        for entry in entries(path):
            if entry.HasField("run"):
                run = entry.run
            elif entry.HasField("history"):
                items = {
                    "/".join(item.nested_key) or item.key: json.loads(item.value_json)
                    for item in entry.history.item
                }
                step = entry.history.step.num
                for tag, value in items.items():
                    if not tag.startswith("_"):
                        assert (tag, step) not in history
                        history[tag, step] = value
            elif entry.HasField("exit"):
                status = entry.exit.exit_code
        yield run, history, status


def test_a_resumed_run_goes_on_in_the_same_wandb_run_and_repeats_no_step(tmp_path, resumed, expected):
    records = resumed("wandb")
    runs, histories, statuses = zip(*found_in(tmp_path), strict=True)
    assert [sorted({step for _, step in history}) for history in histories] == [[0, 2], [4], [6]]
    joined = {key: value for history in histories for key, value in history.items()}
    joined = {key: value for key, value in joined.items() if key[0] != "training/step_time"}
    assert joined == pytest.approx(expected(records))
    assert statuses == (1, 1, 0)
    assert {(run.run_id, run.project, run.display_name) for run in runs} == {
        (runs[0].run_id, "studies", "ERM Debug28, target 0, trial 0, hparams 0")
    }
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert {name: config[name] for name in records[0]["args"] if name != "hparams"} == {
        name: value for name, value in records[0]["args"].items() if name != "hparams"
    }
    assert config["hparams"] == records[0]["hparams"]


def test_whoever_is_not_logged_in_is_not_asked_and_the_run_finishes(attempt, caplog, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    assert len(attempt(["wandb"])) == 4
    (warning,) = [line for line in caplog.messages if "wandb" in line]
    assert "tracker wandb is off: not logged in to W&B; run `wandb login`" in warning
