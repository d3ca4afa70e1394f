"""Splits of a dataset, and weights for balanced sampling."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from domainbed.datasets.splitting import make_weights_for_balanced_classes, split_dataset

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "loaders_and_splits.json").read_text())


@pytest.mark.parametrize("case", VECTORS["split_dataset"], ids=lambda c: str(c["seed"]))
def test_splits_equal_upstreams_and_leave_global_generators_unchanged(case):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    first, second = split_dataset(range(case["length"]), case["n"], case["seed"])
    assert (first.keys, second.keys) == (case["first"], case["second"])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


@given(st.integers(0, 40), st.data(), st.integers(0, 2**31 - 1))
def test_parts_are_a_partition(length, data, seed):
    n = data.draw(st.integers(0, length))
    dataset = [f"sample {i}" for i in range(length)]
    first, second = split_dataset(dataset, n, seed)
    assert (len(first), len(second)) == (n, length - n)
    assert sorted([*(first[i] for i in range(n)), *(second[i] for i in range(length - n))]) == sorted(dataset)
    again, _ = split_dataset(dataset, n, seed)
    assert again.keys == first.keys


def test_a_split_cannot_take_more_samples_than_exist():
    with pytest.raises(AssertionError, match="cannot take 5 samples from a dataset of 4"):
        split_dataset(range(4), 5)


def test_weights_equal_those_of_upstreams_test():
    weights = make_weights_for_balanced_classes([("A", 0), ("B", 1), ("C", 0), ("D", 2), ("E", 3), ("F", 0)])
    assert weights.dtype == torch.float32
    assert weights.sum() == 1
    assert weights[0] == weights[2] == weights[5]
    assert weights[1] == weights[3] == weights[4]
    assert 3 * weights[0] == weights[1]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60))
def test_all_classes_have_the_same_total_weight(labels):
    weights = make_weights_for_balanced_classes([(None, label) for label in labels]).double().numpy()
    for label in set(labels):
        assert weights[np.array(labels) == label].sum() == pytest.approx(1 / len(set(labels)), rel=1e-5)


class Unreadable:
    """A dataset that declares its labels, and whose inputs must not be read."""

    targets = (2, 0, 2)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        raise AssertionError("an input was read")


class Iterable:
    """An iterable of samples without access by index."""

    def __len__(self):
        return 3

    def __iter__(self):
        return iter([(None, 2), (None, torch.tensor(0)), (None, 2)])


@pytest.mark.parametrize(
    "dataset",
    [Unreadable(), Iterable(), TensorDataset(torch.zeros(3), torch.tensor([2, 0, 2]))],
    ids=["targets", "iterable", "tensors"],
)
def test_weights_of_all_kinds_of_datasets(dataset):
    assert make_weights_for_balanced_classes(dataset).tolist() == [0.25, 0.5, 0.25]


def test_weights_of_a_split():
    part, _ = split_dataset(Unreadable(), 3, seed=1)
    assert make_weights_for_balanced_classes(part)[part.keys.index(1)] == 0.5
