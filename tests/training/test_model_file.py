import os
import zipfile

import numpy as np
import pytest
import torch

from domainbed.algorithms import get_algorithm_class
from domainbed.datasets import get_dataset_class
from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams
from domainbed.training.model_file import load_model, save_model

KEYS = ["args", "model_input_shape", "model_num_classes", "model_num_domains", "model_hparams", "model_dict"]
ADDED = ["model_class_names", "model_preprocessing", "model_format", "model_version"]
"""Entries that upstream's files, and those of 0.1, lack."""


@pytest.fixture(scope="module")
def dataset():
    return get_dataset_class("Debug28")(None, [], {})


def trained(name, dataset):
    torch.manual_seed(0)
    algorithm = get_algorithm_class(name)(dataset.input_shape, 2, 3, default_hparams(name, "Debug28"))
    algorithm.update([environment[:8] for environment in dataset.datasets])
    return algorithm.eval()


@pytest.mark.parametrize("name", ["ERM", "GroupDRO", "IRM", "AgrRand"])
def test_a_saved_model_is_loaded_unchanged(name, dataset, tmp_path):
    algorithm = trained(name, dataset)
    save_model(tmp_path / "model.pkl", algorithm, dataset, 3, {"algorithm": name, "dataset": "Debug28"})
    content = torch.load(tmp_path / "model.pkl", weights_only=True)
    assert list(content) == [*KEYS, *ADDED]
    assert content["model_input_shape"] == (3, 28, 28)
    loaded = load_model(tmp_path / "model.pkl")
    assert type(loaded) is type(algorithm)
    x = dataset[0][:4][0]
    assert torch.equal(loaded.predict(x), algorithm.predict(x))


@pytest.mark.parametrize("name", ["LFME", "MIRO", "RIDG"])
def test_a_file_has_what_predictions_need_and_one_with_all_is_read_too(name, dataset, tmp_path):
    algorithm = trained(name, dataset)
    path = tmp_path / "model.pkl"
    save_model(path, algorithm, dataset, 3, {"algorithm": name, "dataset": "Debug28"})
    content = torch.load(path, weights_only=True)
    assert {each.partition(".")[0] for each in content["model_dict"]} == {
        "featurizer",
        "classifier",
        "network",
    }
    minibatches = [environment[:4] for environment in dataset.datasets]
    x, loaded = minibatches[0][0], load_model(path)
    assert torch.equal(loaded.predict(x), algorithm.predict(x))
    with pytest.raises(UsageError, match=f"this {name} was read from a model file, which lacks what updates"):
        loaded.update(minibatches)
    torch.save(content | {"model_dict": algorithm.state_dict()}, path)
    whole = load_model(path)
    assert torch.equal(whole.predict(x), algorithm.predict(x))
    whole.update(minibatches)
    del content["model_dict"]["classifier.weight"]
    torch.save(content, path)
    with pytest.raises(UsageError, match=r"are not those of .*classifier\.weight"):
        load_model(path)


def test_upstreams_numpy_scalars_are_read_safely(dataset, tmp_path):
    algorithm = trained("ERM", dataset)
    hparams = algorithm.hparams | {"resnet_dropout": np.float64(0.1), "batch_size": np.int64(8)}
    hparams |= {"vit_dropout": np.float32(0.5), "nonlinear_classifier": np.bool_(False)}
    del hparams["lars"]  # older files do not have it
    values = ({"algorithm": "ERM", "dataset": "Debug28"}, (3, 28, 28), 2, 3, hparams, algorithm.state_dict())
    torch.save(dict(zip(KEYS, values, strict=True)), tmp_path / "model.pkl")
    loaded = load_model(tmp_path / "model.pkl")
    assert loaded.hparams["resnet_dropout"] == 0.1
    assert type(loaded.hparams["batch_size"]) is int
    assert loaded.hparams["lars"] is False


def test_scalars_of_numpy_1_are_read(dataset, tmp_path):
    """Upstream pins NumPy 1.22, which writes the old name of the module into the pickle."""
    algorithm = trained("ERM", dataset)
    values = ({"algorithm": "ERM", "dataset": "Debug28"}, (3, 28, 28), 2, 3, None, algorithm.state_dict())
    content = dict(zip(KEYS, values, strict=True)) | {
        "model_hparams": algorithm.hparams | {"lr": np.float64(0.1)}
    }
    torch.save(content, tmp_path / "new.pkl")
    with zipfile.ZipFile(tmp_path / "new.pkl") as new, zipfile.ZipFile(tmp_path / "old.pkl", "w") as old:
        for name in new.namelist():
            old.writestr(
                name, new.read(name).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
            )
    assert load_model(tmp_path / "old.pkl").hparams["lr"] == 0.1


def test_a_model_that_lacks_weights_is_refused_in_one_line(dataset, tmp_path):
    algorithm = trained("ERM", dataset)
    save_model(tmp_path / "model.pkl", algorithm, dataset, 3, {"algorithm": "IRM", "dataset": "Debug28"})
    with pytest.raises(UsageError, match=r"Missing key.*update_count"):
        load_model(tmp_path / "model.pkl")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_a_file_that_would_execute_code_is_refused(tmp_path):
    torch.save({"args": Malicious(tmp_path / "owned")}, tmp_path / "model.pkl")
    with pytest.raises(UsageError, match="is not a model written by train"):
        load_model(tmp_path / "model.pkl")
    assert not (tmp_path / "owned").exists()


REASONS = {
    "it is empty": lambda whole: b"",
    "it is no file of torch.save": lambda whole: b"hello world",
    "its contents are incomplete or damaged": lambda whole: whole[: len(whole) // 2],
}


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    """Path of a whole model."""
    path = tmp_path_factory.mktemp("whole") / "model.pkl"
    save_model(path, trained("ERM", dataset), dataset, 3, {"algorithm": "ERM", "dataset": "Debug28"})
    return path


@pytest.mark.parametrize("reason", REASONS)
def test_other_and_incomplete_files_are_refused_with_what_to_do(reason, whole, tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(REASONS[reason](whole.read_bytes()))
    with pytest.raises(UsageError) as info:
        load_model(path)
    assert str(info.value) == (
        f"{path} is damaged, or is not a model written by train: {reason}; run its train command again with "
        "--restart, or name another file"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"args": ...}, "it has no entry args"),
        ({"args": {}}, "its entry args names no algorithm"),
        ({"model_dict": ...}, "it has no entry model_dict"),
        ({"model_hparams": None}, "its entry model_hparams is of type NoneType"),
        ({"model_num_classes": "2"}, "its entry model_num_classes is of type str"),
        ({"model_num_classes": -1}, "its entries do not make a network (RuntimeError: "),
    ],
)
def test_a_file_without_the_entries_of_a_model_says_which(changes, reason, whole, tmp_path):
    content = torch.load(whole, weights_only=True) | changes
    path = tmp_path / "model.pkl"
    torch.save({name: value for name, value in content.items() if value is not ...}, path)
    with pytest.raises(UsageError) as info:
        load_model(path)
    assert f"is not a model written by train: {reason}" in str(info.value)
    assert str(info.value).endswith("; run its train command again with --restart, or name another file")


def test_a_tensor_is_no_model(tmp_path):
    torch.save(torch.ones(3), tmp_path / "model.pkl")
    with pytest.raises(UsageError, match="it holds one Tensor, not named entries; run its train command"):
        load_model(tmp_path / "model.pkl")


def test_long_reasons_end_between_words_with_what_to_do(whole, tmp_path):
    content = torch.load(whole, weights_only=True) | {"model_dict": {}}
    torch.save(content, tmp_path / "model.pkl")
    with pytest.raises(
        UsageError, match=r'", \.\.\.; read it with the release that wrote it, or train it again$'
    ):
        load_model(tmp_path / "model.pkl")


def test_a_missing_model_is_not_said_to_be_of_another_kind(tmp_path):
    with pytest.raises(UsageError, match=r"model\.pkl cannot be read: No such file or directory"):
        load_model(tmp_path / "model.pkl")


@pytest.mark.parametrize(
    ("key", "value", "missing"),
    [
        ("algorithm", "OursOfAPlugin", "Algorithm not found: OursOfAPlugin"),
        ("featurizer", "patches_of_a_plugin", "Featurizer not found: patches_of_a_plugin"),
    ],
)
def test_a_model_of_a_missing_plugin_says_what_is_missing(key, value, missing, dataset, tmp_path):
    algorithm = trained("ERM", dataset)
    args = {"dataset": "Debug28", "algorithm": value if key == "algorithm" else "ERM"}
    save_model(tmp_path / "model.pkl", algorithm, dataset, 3, args)
    if key == "featurizer":
        content = torch.load(tmp_path / "model.pkl", weights_only=True)
        content["model_hparams"][key] = value
        torch.save(content, tmp_path / "model.pkl")
    with pytest.raises(UsageError, match="needs a plugin that is missing here") as caught:
        load_model(tmp_path / "model.pkl")
    assert missing in str(caught.value)
    assert "not a model written by train" not in str(caught.value)
