"""Datasets in folders root/environment/class/image."""

import pickle
import shutil
from pathlib import Path

import pytest
import torch

from domainbed.datasets import get_dataset_class, num_environments
from domainbed.datasets.image_folder import MultipleEnvironmentImageFolder, folder_dataset
from domainbed.errors import UsageError

COUNTS = {"ink": {"cat": 2, "dog": 3}, "oil": {"cat": 1, "dog": 1}, "Wood": {"cat": 1, "dog": 2}}
HPARAMS = {"data_augmentation": True, "input_size": 32}


@pytest.fixture
def folder(tmp_path, write_tree):
    write_tree(tmp_path / "paintings", COUNTS)
    (tmp_path / "paintings" / ".cache").mkdir()
    return tmp_path / "paintings"


def differs(environment):
    """Whether two accesses give different inputs, in at least one of ten attempts."""
    return any(not torch.equal(environment[0][0], environment[0][0]) for _ in range(10))


def test_the_path_of_a_folder_is_the_name_of_a_dataset(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    for name in (str(folder), "paintings", "./paintings/"):
        cls = get_dataset_class(name)
        assert cls.__name__ == "paintings"
        assert list(cls.ENVIRONMENTS) == ["Wood", "ink", "oil"]
        assert not cls.NEEDS_DATA
        assert cls.missing(None) is None
        assert num_environments(name) == 3


def test_the_dataset_of_a_folder(folder):
    dataset = folder_dataset(folder)(None, [0], HPARAMS)
    assert dataset.counts() == {name: COUNTS[name] for name in ("Wood", "ink", "oil")}
    assert list(dataset.class_names) == ["cat", "dog"]
    assert dataset.num_classes == 2
    assert dataset.input_shape == (3, 32, 32)
    x, y = dataset[1][4]
    assert tuple(x.shape) == dataset.input_shape
    assert x.dtype == torch.float32
    assert y == 1
    assert Path(dataset.dir) == folder


def test_source_environments_are_augmented_and_targets_not(folder):
    dataset = folder_dataset(folder)(None, [0, 2], HPARAMS)
    assert [differs(environment) for environment in dataset.datasets] == [False, True, False]
    assert not any(differs(environment.plain()) for environment in dataset.datasets)
    off = folder_dataset(folder)(None, [0], HPARAMS | {"data_augmentation": False})
    assert not any(differs(environment) for environment in off.datasets)
    assert torch.equal(off[1][3][0], dataset[1].plain()[3][0])


def test_images_are_224_pixels_by_default(folder):
    dataset = folder_dataset(folder)(None, [], {"data_augmentation": True})
    assert dataset.input_shape == (3, 224, 224)
    assert tuple(dataset[0][0][0].shape) == (3, 224, 224)


def test_a_pickled_copy_gives_the_same_samples(folder):
    environment = folder_dataset(folder)(None, [1], HPARAMS)[1]
    copy = pickle.loads(pickle.dumps(environment))
    assert torch.equal(copy[2][0], environment[2][0])


def test_missing_and_the_constructor_report_a_wrong_layout(folder):
    (folder / "oil" / "cow").mkdir()
    cls = folder_dataset(folder)
    assert "Wood lacks cow; ink lacks cow" in cls.missing(None)
    with pytest.raises(UsageError, match="Wood lacks cow"):
        cls(None, [0], HPARAMS)
    (folder / "oil" / "cow").rmdir()
    next((folder / "oil" / "cat").iterdir()).unlink()
    assert "class cat of environment oil has no images" in cls.missing(None)


def test_a_folder_without_folders_is_refused(tmp_path):
    with pytest.raises(UsageError, match="has no environments"):
        get_dataset_class(str(tmp_path))


class Fork(MultipleEnvironmentImageFolder):
    """A dataset class as users of upstream write it."""

    ENVIRONMENTS = ["I", "O"]

    def __init__(self, root, test_envs, hparams):
        self.dir = f"{root}/paintings/"
        super().__init__(self.dir, test_envs, hparams["data_augmentation"], hparams)


def test_a_class_of_a_fork(folder):
    (folder / "Wood").rename(folder.parent / "Wood")
    dataset = Fork(str(folder.parent), [0], HPARAMS)
    assert dataset.counts() == {"I": COUNTS["ink"], "O": COUNTS["oil"]}
    assert dataset.dir.startswith(str(folder))


def test_an_extra_folder_cannot_shift_the_environments_of_a_fork(folder):
    with pytest.raises(UsageError, match=r"Fork has 2 environments \(I, O\), but .* 3 folders"):
        Fork(str(folder.parent), [0], HPARAMS)


def test_the_base_class_itself_names_environments_after_their_folders(folder):
    dataset = MultipleEnvironmentImageFolder(folder, [], False, HPARAMS)
    assert list(dataset.ENVIRONMENTS) == ["Wood", "ink", "oil"]
    assert dataset.counts()["ink"] == COUNTS["ink"]


@pytest.mark.parametrize("hparams", [{"data_augmentation": False}, {}, {"augmentation": "pil"}])
def test_a_run_gives_the_same_records_with_and_without_the_cache(
    hparams, folder, assert_cache_changes_nothing
):
    for environment in folder.iterdir():
        for number, path in enumerate(sorted(environment.glob("*/*"))):
            shutil.copy(path, path.with_stem(f"copy-{number}"))  # a split needs several images of each class
    assert_cache_changes_nothing(str(folder), **hparams)
