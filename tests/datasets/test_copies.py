"""Images that are in several environments."""

import logging
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from domainbed.datasets import get_dataset_class
from domainbed.datasets.base import MultipleDomainDataset
from domainbed.datasets.copies import digest, warn_of_copies
from domainbed.datasets.every_image import check_images
from domainbed.images.environment import prepare
from domainbed.training.config import TrainConfig
from domainbed.training.run import build

COUNTS = {"ink": {"cat": 2, "dog": 2}, "oil": {"cat": 2, "dog": 2}, "wood": {"cat": 2, "dog": 2}}
HPARAMS = '{"input_size": 16, "featurizer": "mlp"}'


@pytest.fixture
def folder(tmp_path, write_tree):
    write_tree(tmp_path / "paintings", COUNTS)
    return tmp_path / "paintings"


def warned(caplog):
    messages = [record.getMessage() for record in caplog.records if "another environment" in record.msg]
    caplog.clear()
    return messages


@pytest.mark.parametrize(
    "settings", [{}, {"cache_dir": "none", "check_images": True}, {"check_images": True}]
)
def test_a_run_says_once_which_images_are_also_in_another_environment(folder, caplog, settings, tmp_path):
    settings = {"dataset": str(folder), "hparams": HPARAMS, "cache_dir": str(tmp_path / "cache")} | settings
    with caplog.at_level(logging.WARNING):
        build(TrainConfig(**settings))
        assert warned(caplog) == []
        shutil.copy(folder / "ink/cat/0.png", folder / "ink/cat/copy.png")
        build(TrainConfig(**settings))
        assert warned(caplog) == []
        shutil.copy(folder / "ink/cat/0.png", folder / "oil/dog/copy.png")
        for _ in range(2):  # decoded now, and then from the cache
            build(TrainConfig(**settings))
            (message,) = warned(caplog)
            assert message == (
                "warning: 1 of 14 images of paintings are also in another environment: "
                f"{folder / 'ink/cat/0.png'} = {folder / 'oil/dog/copy.png'}"
            )


def test_images_that_nobody_read_are_not_compared(folder, caplog):
    shutil.copy(folder / "ink/cat/0.png", folder / "oil/dog/copy.png")
    dataset = get_dataset_class(str(folder))(None, [0], {"data_augmentation": True, "input_size": 16})
    with caplog.at_level(logging.WARNING):
        prepare(dataset, None, torch.device("cpu"))
        assert warned(caplog) == []
        check_images(dataset)
        prepare(dataset, None, torch.device("cpu"))
        assert len(warned(caplog)) == 1


class Named(MultipleDomainDataset):
    ENVIRONMENTS = ("a", "b", "c")

    def __init__(self):
        self.datasets = [(), (), ()]


@given(st.lists(st.lists(st.integers(0, 8), max_size=6), min_size=3, max_size=3))
def test_those_count_whose_first_instance_is_elsewhere(contents):
    seen, expected = {}, []
    for number, values in enumerate(contents):
        for index, value in enumerate(values):
            before = seen.setdefault(value, (number, index))
            if before[0] != number:
                expected.append(f"{'abc'[before[0]]}[{before[1]}] = {'abc'[number]}[{index}]")
    log = logging.getLogger("domainbed.datasets.copies")
    records = []
    log.addFilter(records.append)
    try:
        warn_of_copies(Named(), [np.array(values, dtype=np.uint64) for values in contents])
    finally:
        log.removeFilter(records.append)
    assert bool(records) == bool(expected)
    if expected:
        start = f"warning: {len(expected)} of {sum(map(len, contents))} images of Named are also in"
        assert records[0].getMessage().startswith(start)
        assert ", ".join(expected[:3]) in records[0].getMessage()
        assert records[0].getMessage().endswith(", ...") == (len(expected) > 3)


def test_a_digest_is_of_the_shape_and_every_pixel():
    x = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    others = [x.reshape(4, 1, 3), x.astype(np.int8), x.transpose(1, 0, 2), x + np.uint8(1)]
    assert len({digest(x), *map(digest, others)}) == 5
    assert digest(x[::-1][::-1]) == digest(x)
