"""Debug28 and Debug224."""

import json
from pathlib import Path

import pytest
import torch

from domainbed.datasets import get_dataset_class

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "datasets_golden.json").read_text())


def test_debug28_equals_upstream():
    torch.manual_seed(0)
    dataset = get_dataset_class("Debug28")("", [0], {})
    for environment, golden in zip(dataset.datasets, GOLDEN["Debug28"], strict=True):
        x, y = environment.tensors
        # Normal draws are made of logarithms and cosines, whose last bits differ between processors.
        assert x.sum(dtype=torch.float64).item() == pytest.approx(golden["x_sum"], abs=1e-7 * x.numel())
        assert x.flatten()[:3].tolist() == pytest.approx(golden["x_first"], abs=1e-5)
        assert y.tolist() == golden["y"]


@pytest.mark.parametrize(("name", "side"), [("Debug28", 28), ("Debug224", 224)])
def test_debug_datasets_need_no_data(name, side):
    cls = get_dataset_class(name)
    assert cls.missing(None) is None
    dataset = cls(None, [], {})
    assert dataset.input_shape == (3, side, side)
    assert [len(environment) for environment in dataset.datasets] == [16, 16, 16]
    assert dataset.ENVIRONMENTS == ("0", "1", "2")
    assert sum(n for per_class in dataset.counts().values() for n in per_class.values()) == 48


@pytest.mark.parametrize("name", ["Debug28", "Debug224"])
def test_five_steps_of_training(name, assert_cache_changes_nothing):
    assert_cache_changes_nothing(name, in_memory=True, featurizer="mlp", mlp_width=8)
