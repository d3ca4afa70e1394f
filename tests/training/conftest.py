"""Fixtures for runs that are interrupted, and the uninterrupted run that they must equal."""

import json

import pytest
import torch

from domainbed import predictions
from domainbed.training import checkpoint, loop
from domainbed.training.config import TrainConfig
from domainbed.training.prefetcher import Prefetcher
from domainbed.training.run import build
from domainbed.training.run_dir import RunDir
from domainbed.training.run_state import RunState, run_state

CHANGING = ("step_time", "mem_gb", "args")


def records_of(path):
    lines = (path / "results.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in CHANGING} for line in lines]


def weights_of(path):
    return torch.load(path / "model.pkl", weights_only=True)["model_dict"]


@pytest.fixture
def assert_same():
    """`assert_same(path, straight)`: two runs have equal weights, predictions and, but for times, records."""

    def check(path, straight):
        assert records_of(path) == records_of(straight)
        expected, got = weights_of(straight), weights_of(path)
        assert expected.keys() == got.keys()
        assert all(torch.equal(expected[name], got[name]) for name in expected)
        if (straight / predictions.NAME).exists():
            saved = [(each / predictions.NAME).read_bytes() for each in (path, straight)]
            assert saved[0] == saved[1]

    return check


@pytest.fixture
def flags():
    """`flags(path, checkpoint_every=0)`: flags of a run of AgrRand that takes about two seconds."""

    def make(path, checkpoint_every=0):
        settings = {"dataset": "EmojiStyles", "algorithm": "AgrRand", "steps": 200, "checkpoint_freq": 50}
        settings |= {"hparams": '{"batch_size": 4}', "checkpoint_every": checkpoint_every, "output_dir": path}
        settings["save_predictions"] = "selected"
        return [f"--{name}={value}" for name, value in settings.items()]

    return make


@pytest.fixture(scope="session")
def straight_path(tmp_path_factory):
    """Directory of the run of `straight`, shared by all tests."""
    return tmp_path_factory.mktemp("straight") / "run"


@pytest.fixture
def straight(start_script, straight_path, flags):
    """Directory of a finished run with `flags` that was never interrupted."""
    if run_state(straight_path) is not RunState.DONE:
        ended = start_script("train", *flags(straight_path, checkpoint_every=60)).wait()
        assert ended.returncode == 0, ended.stderr
    return straight_path


@pytest.fixture
def updates_in():
    """`updates_in(path)`: number of updates in the checkpoint of a run; 0 without one."""

    def read(path):
        content = checkpoint.load(path)
        return 0 if content is None else content["updates"]

    return read


@pytest.fixture
def small_config():
    """`small_config(path, **settings)`: the settings of a run of six updates."""
    small = {"dataset": "Debug28", "steps": 6, "checkpoint_freq": 2, "test_envs": [0], "evaluate": "all"}
    small |= {"save_predictions": "all", "hparams": '{"batch_size": 4, "featurizer": "small_cnn"}'}
    return lambda path, **settings: TrainConfig(**{**small, **settings, "output_dir": str(path)})


class StopAfter:
    """Stop requests that raise Preempted at the given call of `check`."""

    def __init__(self, calls):
        self.calls = calls

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def check(self):
        self.calls -= 1
        if self.calls == 0:
            raise loop.Preempted("stopped")


@pytest.fixture
def attempt(small_config):
    """`attempt(path, stop_at=0, **settings)`: train such a run, up to call number `stop_at` of `check`."""

    def train(path, stop_at=0, **settings):
        config = small_config(path, **settings)
        kept = {name: value for name, value in config.recorded().items() if name != "output_dir"}
        with pytest.MonkeyPatch.context() as patch:
            if stop_at:
                patch.setattr(loop, "StopRequests", lambda notice: StopAfter(stop_at))
            try:
                with RunDir(path, kept, config.restart) as directory:
                    if not directory.finished:
                        loop.train(build(config), directory)
            except loop.Preempted:
                assert stop_at

    return train


@pytest.fixture
def shown():
    """`shown(folder)`: (tag, step) -> event, as TensorBoard reads them from a run's directory."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(folder):
        events = EventAccumulator(str(folder))
        events.Reload()
        scalars = [(tag, event) for tag in events.Tags()["scalars"] for event in events.Scalars(tag)]
        assert len(scalars) == len({(tag, event.step) for tag, event in scalars}), "a step appears twice"
        return {(tag, event.step): event for tag, event in scalars}

    return read


@pytest.fixture
def prefetcher():
    """`prefetcher(sources, num_workers)`: a Prefetcher that is closed in the end."""
    made = []

    def make(*args):
        made.append(Prefetcher(*args))
        return made[-1]

    yield make
    for each in made:
        each.close()
