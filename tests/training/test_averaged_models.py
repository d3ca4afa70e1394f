import shutil

import pytest
import torch

import domainbed
from domainbed.errors import UsageError
from domainbed.predictions import accuracy, read_predictions
from domainbed.training.averaged_models import mean_weights, predict_environment


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Directories of two runs that share their initial weights."""
    folder = tmp_path_factory.mktemp("runs")
    hparams = {"batch_size": 8, "featurizer": "small_cnn", "initial_seed": 0}
    for trial in range(2):
        domainbed.train(
            dataset="EmojiStyles",
            steps=3,
            test_envs=[1],
            seed=trial,
            trial_seed=trial,
            hparams=hparams,
            save_predictions="last",
            output_dir=folder / str(trial),
        )
    return [folder / "0", folder / "1"]


def test_the_model_of_a_run_predicts_what_the_run_predicted(runs):
    saved = read_predictions(runs[0])
    parts = predict_environment(runs[:1], 1)
    assert [part.name for part in parts] == ["env1_in", "env1_out"]
    for part in parts:
        before = saved.part(part.name)
        assert (part.positions == before.positions).all()
        assert accuracy(part) == pytest.approx(accuracy(before), abs=0.01)  # kernels may round differently


def test_the_average_of_a_model_with_itself_is_that_model(runs):
    for once, twice in zip(
        predict_environment(runs[:1], 1), predict_environment([runs[0], runs[0]], 1), strict=True
    ):
        assert (once.predicted == twice.predicted).mean() > 0.99


def test_two_models_are_averaged_on_the_data_of_the_first(runs):
    parts = predict_environment(runs, 1)
    assert [part.name for part in parts] == ["env1_in", "env1_out"]
    assert (parts[0].positions == read_predictions(runs[0]).part("env1_in").positions).all()


def test_weights_are_averaged_and_counters_kept():
    first = {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)}
    other = {"w": torch.tensor([3.0, 6.0]), "n": torch.tensor(5)}
    mean = mean_weights([first, other])
    assert mean["w"].tolist() == [2.0, 4.0]
    assert mean["n"].item() == 3
    with pytest.raises(UsageError, match="models of different layers cannot be averaged: they differ in w"):
        mean_weights([first, {**other, "w": torch.zeros(3)}])


def test_a_run_without_a_model_or_on_other_data_is_named(runs, tmp_path):
    with pytest.raises(UsageError, match=r"model .*model\.pkl cannot be read: No such file"):
        predict_environment([tmp_path], 1)
    shutil.copytree(runs[0], tmp_path / "run")
    about = (tmp_path / "run" / "run.json").read_text()
    (tmp_path / "run" / "run.json").write_text(about.replace('"checksum": "', '"checksum": "0'))
    with pytest.raises(UsageError, match="holds a run on other data"):
        predict_environment([tmp_path / "run"], 1)
