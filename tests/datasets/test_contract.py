"""Checks of a dataset, and the checksum that identifies its data."""

import shutil

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from domainbed.datasets import get_dataset_class
from domainbed.datasets.base import MultipleDomainDataset
from domainbed.datasets.contract import build, checksum, identify_contents
from domainbed.datasets.image_checks import check_images
from domainbed.errors import RunError, UsageError

HPARAMS = {"data_augmentation": True, "input_size": 16}
COUNTS = {"ink": {"cat": 2, "dog": 3}, "oil": {"cat": 1, "dog": 1}, "wood": {"cat": 1, "dog": 2}}


class Numbers(MultipleDomainDataset):
    """Environments with `labels`; all inputs are zero but for one `value`."""

    ENVIRONMENTS = ("a", "b")
    labels = ([0, 1], [1, 0, 0])
    value = 0.0

    def __init__(self, root, test_envs, hparams):
        self.input_shape, self.num_classes = (3,), 2
        self.datasets = []
        for labels in self.labels:
            x = torch.zeros(len(labels), 3)
            x[-1:, -1:] = self.value
            self.datasets.append(TensorDataset(x, torch.tensor(labels, dtype=torch.int64)))


def variant(**members):
    return type("Numbers", (Numbers,), members)


def checksum_of(kind, root=None):
    return build(kind, root and str(root), [0], HPARAMS).summary["checksum"]


def test_a_summary_has_counts_checksum_and_version():
    summary = build(Numbers, None, [0], {}).summary
    assert summary["counts"] == {"a": {"0": 1, "1": 1}, "b": {"0": 2, "1": 1}}
    assert len(bytes.fromhex(summary["checksum"])) == 8
    assert build(variant(VERSION=7), None, [0], {}).summary == summary | {"version": 7}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"labels": ([0, 1], [])}, "environment b of Numbers has no samples"),
        (
            {"labels": ([0, 1], [0, 2])},
            "environment b of Numbers has the label 2; labels must be from 0 to 1",
        ),
        ({"labels": ([-1, 1], [0, 1])}, "environment a of Numbers has the label -1"),
        ({"labels": ([1, 1], [0, 1])}, "environment a of Numbers has no samples of class 0; every"),
        (
            {"labels": ([1, 0], [0, 0]), "class_names": ("cat", "dog")},
            "environment b of Numbers has no samples of class dog",
        ),
        ({"ENVIRONMENTS": ("a", "b", "c")}, "Numbers names 3 environments but has 2"),
        ({"class_names": ("cat",)}, "Numbers names 1 classes but has 2"),
    ],
)
def test_an_invalid_dataset_is_refused_in_one_line(members, message):
    with pytest.raises(UsageError, match=message) as caught:
        build(variant(**members), None, [0], {})
    assert "\n" not in str(caught.value)


def test_environments_may_lack_classes_if_same_classes_is_false():
    members = {"labels": ([1, 1], [0, 1])}
    assert build(variant(SAME_CLASSES=False, **members), None, [0], {}).counts()["a"] == {"0": 0, "1": 2}


def test_every_sample_must_have_a_label():
    class Short(Numbers):
        def __init__(self, *args):
            super().__init__(*args)
            self.datasets[1].targets = [0]

    with pytest.raises(UsageError, match="environment b of Short has 3 samples but 1 labels"):
        build(Short, None, [0], {})


def test_the_checksum_of_samples_in_memory_depends_on_every_input_label_and_name():
    changed = [
        {"value": 1.0},
        {"labels": ([1, 0], [1, 0, 0])},
        {"labels": ([0, 1, 1], [0, 1])},
        {"ENVIRONMENTS": ("a", "c")},
    ]
    checksums = [checksum_of(Numbers), *(checksum_of(variant(**members)) for members in changed)]
    assert len(set(checksums)) == len(checksums)
    assert checksum_of(Numbers) == checksums[0]


@pytest.mark.parametrize("generator", ["torch", "numpy"])
def test_the_checksum_of_random_data_depends_on_sizes_alone(generator):
    class Drawn(Numbers):
        @property
        def value(self):
            return torch.rand(1) if generator == "torch" else np.random.rand()

    assert checksum_of(Drawn) == checksum_of(Drawn)
    more = type("Drawn", (Drawn,), {"labels": ([0, 1], [1, 0, 0, 0])})
    assert checksum_of(more) != checksum_of(Drawn)


def test_registered_datasets_have_the_same_checksum_for_every_seed():
    for name in ("Debug28", "ColoredDigits", "EmojiStyles"):
        checksums = set()
        for seed in (0, 1):
            torch.manual_seed(seed)
            checksums.add(checksum_of(get_dataset_class(name)))
        assert len(checksums) == 1, name


@pytest.fixture
def folder(tmp_path, write_tree):
    write_tree(tmp_path / "paintings", COUNTS)
    return tmp_path / "paintings"


def test_the_checksum_of_files_depends_on_their_names_sizes_and_labels(folder, tmp_path):
    before = checksum_of(get_dataset_class(str(folder)))
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere" / "pictures")
    assert checksum_of(get_dataset_class(str(elsewhere))) == before
    (elsewhere / "ink/dog/1.png").rename(elsewhere / "ink/dog/7.png")
    renamed = checksum_of(get_dataset_class(str(elsewhere)))
    with (folder / "ink/dog/1.png").open("ab") as file:
        file.write(b"\0")
    longer = checksum_of(get_dataset_class(str(folder)))
    assert len({before, renamed, longer}) == 3


def test_the_checksum_opens_no_image(folder):
    dataset = get_dataset_class(str(folder))(None, [0], HPARAMS)
    before = checksum(dataset, is_random=False)
    for image in folder.glob("*/*/*.*"):
        image.write_bytes(bytes(image.stat().st_size))
    assert checksum(dataset, is_random=False) == before


def test_an_environment_whose_first_image_cannot_be_read_is_refused(folder):
    assert build(get_dataset_class(str(folder)), None, [0], HPARAMS).summary["counts"] == COUNTS
    for image in (folder / "oil").glob("*/*"):
        image.write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(RunError, match=r"image .*oil/cat/0\.\w+ cannot be read .*; replace it or delete it"):
        build(get_dataset_class(str(folder)), None, [0], HPARAMS)


def contents_of(folder):
    dataset = build(get_dataset_class(str(folder)), None, [0], HPARAMS)
    check_images(dataset)
    identify_contents(dataset)
    return dataset.summary["contents"], dataset.summary["checksum"]


def test_contents_tell_folders_apart_that_agree_in_names_and_sizes(folder, tmp_path):
    contents, same = contents_of(folder)
    assert len(bytes.fromhex(contents)) == 8
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere" / "pictures")
    assert contents_of(elsewhere) == (contents, same)
    with (elsewhere / "ink/dog/1.png").open("ab") as file:
        file.write(b"0")
    with (folder / "ink/dog/1.png").open("ab") as file:
        file.write(b"1")
    (one, checksum_of_one), (other, checksum_of_other) = contents_of(folder), contents_of(elsewhere)
    assert checksum_of_one == checksum_of_other
    assert len({contents, one, other}) == 3


def test_contents_do_not_depend_on_names_but_on_labels(folder):
    contents, before = contents_of(folder)
    (folder / "ink/dog/1.png").rename(folder / "ink/dog/1b.png")
    assert contents_of(folder) == (contents, contents_of(folder)[1])
    assert contents_of(folder)[1] != before
    min((folder / "ink/dog").iterdir()).rename(folder / "ink/cat/9.png")
    assert contents_of(folder)[0] != contents


def test_contents_are_not_known_before_images_are_decoded(folder):
    dataset = build(get_dataset_class(str(folder)), None, [0], HPARAMS)
    identify_contents(dataset)
    assert "contents" not in dataset.summary
    numbers = build(Numbers, None, [0], {})
    check_images(numbers)
    identify_contents(numbers)
    assert "contents" not in numbers.summary
