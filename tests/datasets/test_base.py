"""Labels of all kinds of datasets, and the base class of datasets."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from domainbed.datasets.base import MultipleDomainDataset, labels_of
from domainbed.datasets.uint8_images import UInt8Images
from domainbed.errors import UsageError

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=30)


class Items:
    """A dataset that does not declare its labels."""

    def __init__(self, labels):
        self._labels = labels

    def __len__(self):
        return len(self._labels)

    def __getitem__(self, index):
        return torch.zeros(1), torch.tensor(self._labels[index])


class WithTargets(Items):
    """A dataset that declares its labels, and whose inputs must not be read."""

    def __init__(self, labels):
        super().__init__(labels)
        self.targets = labels

    def __getitem__(self, index):
        raise AssertionError("an input was read")


class View:
    """A part of a dataset, with the attributes of `SplitDataset`."""

    def __init__(self, underlying_dataset, keys):
        self.underlying_dataset = underlying_dataset
        self.keys = keys


@settings(deadline=None)
@given(LABELS)
def test_labels_of_all_kinds_of_datasets_agree(labels):
    tensors = TensorDataset(torch.zeros(len(labels), 1), torch.tensor(labels))
    images = UInt8Images(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), torch.tensor(labels))
    for dataset in (Items(labels), WithTargets(labels), tensors, images):
        found = labels_of(dataset)
        assert found.dtype == np.int64
        assert found.tolist() == labels


@settings(deadline=None)
@given(LABELS, st.data())
def test_labels_of_views_follow_their_keys_without_reading_inputs(labels, data):
    keys = data.draw(st.lists(st.integers(0, len(labels) - 1), max_size=20))
    whole = WithTargets(labels)
    expected = [labels[key] for key in keys]
    assert labels_of(View(whole, keys)).tolist() == expected
    assert labels_of(Subset(whole, keys)).tolist() == expected
    assert labels_of(View(Subset(whole, keys), range(len(keys)))).tolist() == expected
    assert labels_of(ConcatDataset([Subset(whole, keys), whole])).tolist() == expected + labels


class Small(MultipleDomainDataset):
    ENVIRONMENTS = ("left", "right")

    def __init__(self, root, test_envs, hparams):
        self.datasets = [WithTargets([0, 0, 2]), WithTargets([1])]
        self.input_shape = (1,)
        self.num_classes = 3


def test_counts_include_classes_that_an_environment_lacks():
    dataset = Small(None, [], {})
    assert dataset.counts() == {"left": {"0": 2, "1": 0, "2": 1}, "right": {"0": 0, "1": 1, "2": 0}}
    dataset.class_names = ("a", "b", "c")
    assert dataset.counts()["left"] == {"a": 2, "b": 0, "c": 1}


def test_indexing_and_length_go_to_the_environments():
    dataset = Small(None, [], {})
    assert len(dataset) == 2
    assert dataset[1] is dataset.datasets[1]


def test_a_missing_data_directory_is_named(tmp_path):
    assert "--data_dir" in Small.missing(None)
    with pytest.raises(UsageError, match="nowhere does not exist"):
        Small.require(str(tmp_path / "nowhere"))
    assert Small.require(str(tmp_path)) == tmp_path
