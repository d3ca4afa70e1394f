"""Datasets by name, and hyper-parameters that depend on the dataset."""

import pytest

from domainbed import datasets
from domainbed.datasets import by_size, get_dataset_class, has_small_images
from domainbed.datasets.debug import Debug28
from domainbed.errors import UnknownName
from domainbed.hparams import Hparam, const

SMALL, LARGE, NAMED = (Hparam(value, const(value)) for value in (1, 2, 3))


def test_datasets_have_small_images_as_in_upstream():
    assert [name for name in datasets.UPSTREAM if has_small_images(name)] == [
        "Debug28",
        "ColoredMNIST",
        "RotatedMNIST",
    ]
    assert has_small_images("EmojiStyles")
    assert not has_small_images("a fork's dataset")


def test_a_declaration_by_size_prefers_the_datasets_name():
    declare = by_size(small=SMALL, large=LARGE, DomainNet=NAMED)
    assert declare("RotatedMNIST") is SMALL
    assert declare("PACS") is LARGE
    assert declare("unknown") is LARGE
    assert declare("DomainNet") is NAMED


def test_a_class_that_a_fork_assigns_to_the_module_is_found(monkeypatch):
    own = type("Own", (Debug28,), {})
    monkeypatch.setattr(datasets, "Own", own, raising=False)
    assert get_dataset_class("Own") is own
    with pytest.raises(UnknownName, match=r"^Dataset not found: Debug29"):
        get_dataset_class("Debug29")
