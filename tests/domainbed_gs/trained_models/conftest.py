"""Runs with a saved model."""

import pytest

from domainbed.scripts import train


@pytest.fixture(scope="session")
def train_run(tmp_path_factory):
    """`train_run(folder, **settings)`: train two updates on Debug28 into `folder`, and return it."""

    def make(folder, **settings):
        flags = {"dataset": "Debug28", "steps": 2, "hparams": '{"batch_size": 4, "featurizer": "small_cnn"}'}
        flags |= {"output_dir": folder, **settings}
        assert train.main([f"--{name}={value}" for name, value in flags.items()]) == 0
        return folder

    return make


@pytest.fixture(scope="session")
def finished_run(train_run, tmp_path_factory):
    """The directory of a finished run of ERM with target 0; tests do not change it."""
    return train_run(tmp_path_factory.mktemp("runs") / "erm")
