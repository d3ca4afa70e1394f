"""Runs with trackers that stop or crash between updates."""

import json

import pytest

from domainbed.training import loop
from domainbed.training.api import train
from domainbed.training.config import TrainConfig

SMALL = {"dataset": "Debug28", "algorithm": "ERM", "steps": 7, "checkpoint_freq": 2, "evaluate": "reported"}
SMALL |= {"hparams": '{"batch_size": 4, "featurizer": "small_cnn"}', "skip_model_save": True}


class Crash(Exception):
    pass


@pytest.fixture
def attempt(tmp_path, monkeypatch):
    """`attempt(trackers, stop_at=-1, crash_at=-1)`: train until an update, and return the records.

    Records are those of steps 0, 2, 4 and 6. A stop writes a checkpoint, a crash does not.
    """

    def run(trackers, stop_at=-1, crash_at=-1, **settings):
        def check(loop_, requests):
            if loop_.updates == stop_at:
                raise loop.Preempted("stopped")
            if loop_.updates == crash_at:
                raise Crash

        path = tmp_path / "run"
        with monkeypatch.context() as patch:
            patch.setattr(loop.Loop, "check", check)
            expected = loop.Preempted if stop_at >= 0 else Crash
            config = TrainConfig(**SMALL | settings, trackers=trackers, output_dir=str(path))
            if stop_at == crash_at == -1:
                train(config)
            else:
                with pytest.raises(expected):
                    train(config)
        return [json.loads(line) for line in (path / "results.jsonl").read_text().splitlines()]

    return run


@pytest.fixture
def resumed(attempt):
    """`resumed(tracker)`: records of a run that stopped after step 2, crashed after step 4 and then finished.

    The crash loses updates whose record the tracker had.
    """

    def run(name):
        attempt([name], stop_at=3)
        attempt([name], crash_at=6)
        return attempt([name])

    return run


@pytest.fixture
def expected():
    """`expected(records)`: (tag, step) -> number, without the time that is taken anew at each attempt."""

    def tagged(records):
        return {
            (f"{group(name)}/{name}", record["step"]): value
            for record in records
            for name, value in record.items()
            if isinstance(value, int | float) and name not in ("step", "step_time")
        }

    return tagged


def group(name):
    if name.endswith("_acc"):
        return "accuracy"
    return "metrics" if name.startswith("env") else "training"
