"""Every image read once."""

import logging

import pytest
import torch
from torch.utils.data import TensorDataset

from domainbed.datasets import get_dataset_class
from domainbed.datasets.base import MultipleDomainDataset
from domainbed.datasets.every_image import check_images
from domainbed.errors import RunError
from domainbed.training.config import TrainConfig
from domainbed.training.run import build

HPARAMS = {"data_augmentation": True, "input_size": 16}
COUNTS = {"ink": {"cat": 2, "dog": 2}, "oil": {"cat": 2, "dog": 2}, "wood": {"cat": 2, "dog": 2}}


@pytest.fixture
def folder(tmp_path, write_tree):
    write_tree(tmp_path / "paintings", COUNTS)
    return tmp_path / "paintings"


def built(folder):
    return get_dataset_class(str(folder))(None, [0], HPARAMS)


def test_images_that_are_all_there_and_different(folder, caplog):
    check_images(built(folder))
    assert not caplog.records


def test_the_first_unreadable_ones_are_named_and_all_counted(folder):
    damaged = sorted(folder.glob("*/dog/*"))[:4]
    for image in damaged:
        image.write_bytes(b"no image")
    with pytest.raises(RunError, match=r"4 of 12 images of paintings cannot be read: ") as caught:
        check_images(built(folder))
    line = str(caught.value)
    assert [str(image) in line for image in damaged] == [True, True, True, False]
    assert line.endswith(", ...; replace or delete them")
    assert "\n" not in line


def test_a_run_reads_them_before_anything_else_if_it_is_asked_to(folder):
    hparams = '{"input_size": 16, "featurizer": "mlp"}'
    (folder / "wood/cat/1.png").write_bytes(b"no image")
    with pytest.raises(RunError, match=r"1 of 12 images of paintings .*wood/cat/1\.png; replace"):
        build(TrainConfig(dataset=str(folder), hparams=hparams, check_images=True))


def test_copies_in_other_environments_are_warned_of(folder, caplog):
    (folder / "ink/cat/copy.png").write_bytes((folder / "ink/cat/0.png").read_bytes())
    (folder / "oil/dog/copy.png").write_bytes((folder / "ink/cat/0.png").read_bytes())
    with caplog.at_level(logging.WARNING):
        check_images(built(folder))
    (record,) = caplog.records
    assert "1 of 14 images of paintings are also in another environment: " in record.getMessage()
    assert f"{folder / 'ink/cat/0.png'} = {folder / 'oil/dog/copy.png'}" in record.getMessage()


def test_images_in_memory(caplog):
    class InMemory(MultipleDomainDataset):
        ENVIRONMENTS = ("a", "b")

        def __init__(self):
            x = torch.arange(12.0).view(2, 2, 3)
            x[1, 1] = x[0, 0]
            self.datasets = [TensorDataset(inputs, torch.zeros(2)) for inputs in x]

    with caplog.at_level(logging.WARNING):
        check_images(InMemory())
    assert "1 of 4 images of InMemory are also in another environment: a[0] = b[1]" in caplog.text
