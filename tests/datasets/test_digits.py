"""ColoredDigits and RotatedDigits."""

import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from domainbed.datasets import get_dataset_class
from domainbed.datasets.digits import ColoredDigits, RotatedDigits
from domainbed.errors import UsageError

BOTH = (ColoredDigits, RotatedDigits)


def build(cls, seed=0):
    torch.manual_seed(seed)
    return cls(None, [0], {})


@pytest.mark.parametrize("cls", BOTH)
def test_interface(cls):
    dataset = build(cls)
    assert get_dataset_class(cls.__name__) is cls
    assert len(dataset) == len(dataset.ENVIRONMENTS)
    x, y = dataset[0].batch(np.arange(7))
    assert tuple(x.shape) == (7, *dataset.input_shape) == (7, *cls.INPUT_SHAPE)
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert x.min() == 0
    assert x.max() == 1
    assert cls.SMALL_IMAGES


def test_all_1797_digits_are_distributed_evenly():
    assert [len(environment) for environment in build(ColoredDigits)] == [599, 599, 599]
    assert [len(environment) for environment in build(RotatedDigits)] == [300, 300, 300, 299, 299, 299]
    totals = sum(np.array(list(row.values())) for row in build(RotatedDigits).counts().values())
    assert totals.tolist() == np.bincount(load_digits().target).tolist()


def test_pixels_are_those_of_scikit_learn():
    grey = torch.cat([environment.batch(np.arange(599))[0].sum(1) for environment in build(ColoredDigits)])
    levels = (grey * 16).round().flatten(1).numpy()
    np.testing.assert_allclose(grey.flatten(1) * 16, levels, atol=0.05)
    assert sorted(map(tuple, levels)) == sorted(map(tuple, load_digits().data))


def test_colours_agree_with_the_label_at_each_environments_rate():
    for environment, rate in zip(build(ColoredDigits), (0.9, 0.8, 0.1), strict=True):
        color = environment.images[:, 1].flatten(1).any(1)
        agrees = (color == environment.targets.bool()).float().mean().item()
        assert agrees == pytest.approx(rate, abs=4 * (rate * (1 - rate) / 599) ** 0.5)


def test_copies_of_a_digit_have_their_own_noise_and_colour():
    torch.manual_seed(0)
    environments = ColoredDigits(None, [], {"copies": 40}).datasets
    single = build(ColoredDigits)
    for environment, one, rate in zip(environments, single, (0.9, 0.8, 0.1), strict=True):
        copies = environment.images.amax(1).view(40, 599, 8, 8)
        assert (copies == one.images.amax(1)).all()
        wrong = (
            environment.targets.view(40, 599) != environment.targets.view(40, 599).mode(0).values
        ).float()
        # A quarter of each digit's labels is wrong, so that the most frequent of 40 labels is the right one.
        assert wrong.mean() == pytest.approx(0.25, abs=0.015)
        agrees = environment.images[:, 1].flatten(1).any(1) == environment.targets.bool()
        per_digit = agrees.view(40, 599).float().mean(0)
        assert per_digit.mean() == pytest.approx(rate, abs=0.015)
        assert per_digit.std() < 1.5 * (rate * (1 - rate) / 40) ** 0.5
    with pytest.raises(UsageError, match="copies must be at least 1, not 0"):
        ColoredDigits(None, [], {"copies": 0})


def test_the_first_environment_is_upright_and_the_others_are_rotated():
    upright, *rotated = (
        environment.images.flatten(1).double().mean(0).view(8, 8) for environment in build(RotatedDigits)
    )
    assert upright[:, 0].max() < 1, "the margins of the digits are empty"
    assert all(image[:, 0].max() > 5 for image in rotated[1:])


@pytest.mark.parametrize("cls", BOTH)
def test_equal_seeds_give_equal_datasets(cls):
    one, same, other = (build(cls, seed) for seed in (3, 3, 4))
    for i in range(len(one)):
        assert torch.equal(one[i].images, same[i].images)
        assert torch.equal(one[i].targets, same[i].targets)
    assert not torch.equal(one[0].images, other[0].images)


@pytest.mark.parametrize("cls", BOTH)
def test_scikit_learn_is_needed_and_no_data_directory(cls, monkeypatch):
    assert cls.missing(None) is None
    assert cls.missing("nowhere") is None
    monkeypatch.setitem(sys.modules, "sklearn", None)  # as if it were not installed
    with pytest.raises(UsageError, match=r"needs scikit-learn's digits; run: pip install scikit-learn$"):
        build(cls)


@pytest.mark.parametrize("cls", BOTH)
def test_five_steps_of_training(cls, assert_cache_changes_nothing):
    assert_cache_changes_nothing(cls.__name__, in_memory=True, featurizer="mlp")
