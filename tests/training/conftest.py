"""Runs that are disturbed, and what they must be equal to."""

import json

import pytest
import torch

from domainbed.training.run_state import RunState, run_state

CHANGING = ("step_time", "mem_gb", "args")


def records_of(path):
    lines = (path / "results.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in CHANGING} for line in lines]


def weights_of(path):
    return torch.load(path / "model.pkl", weights_only=True)["model_dict"]


@pytest.fixture
def assert_same():
    """`assert_same(run, straight)`: two runs have the same records, but for times, and the same weights."""

    def check(path, straight):
        assert records_of(path) == records_of(straight)
        expected, got = weights_of(straight), weights_of(path)
        assert expected.keys() == got.keys()
        assert all(torch.equal(expected[name], got[name]) for name in expected)

    return check


@pytest.fixture
def flags():
    """`flags(path, checkpoint_every=0)`: of a run of AgrRand that takes about two seconds."""

    def make(path, checkpoint_every=0):
        settings = {"dataset": "EmojiStyles", "algorithm": "AgrRand", "steps": 200, "checkpoint_freq": 50}
        settings |= {"hparams": '{"batch_size": 4}', "checkpoint_every": checkpoint_every, "output_dir": path}
        return [f"--{name}={value}" for name, value in settings.items()]

    return make


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """Where `straight` is kept for all tests."""
    return tmp_path_factory.mktemp("undisturbed") / "run"


@pytest.fixture
def straight(start_script, undisturbed, flags):
    """Directory of such a run that nobody disturbs."""
    if run_state(undisturbed) is not RunState.DONE:
        ended = start_script("train", *flags(undisturbed, checkpoint_every=60)).wait()
        assert ended.returncode == 0, ended.stderr
    return undisturbed


@pytest.fixture
def shown():
    """`shown(folder)`: (tag, step) -> the event, as TensorBoard reads a run's directory."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(folder):
        events = EventAccumulator(str(folder))
        events.Reload()
        found = [(tag, it) for tag in events.Tags()["scalars"] for it in events.Scalars(tag)]
        assert len(found) == len({(tag, it.step) for tag, it in found}), "a step is there twice"
        return {(tag, it.step): it for tag, it in found}

    return read
