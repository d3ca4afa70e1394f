"""Every image read once."""

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


def test_images_that_are_all_there(folder, terminal):
    dataset, shown = built(folder), terminal()
    check_images(dataset)
    assert [len(digests) for digests in dataset.digests] == [4, 4, 4]
    assert "reading images: " in shown.getvalue()
    assert "0/12 [" in shown.getvalue()


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


def test_images_in_memory():
    class InMemory(MultipleDomainDataset):
        ENVIRONMENTS = ("a", "b")

        def __init__(self):
            x = torch.arange(12.0).view(2, 2, 3)
            x[1, 1] = x[0, 0]
            self.datasets = [TensorDataset(inputs, torch.zeros(2)) for inputs in x]

    dataset = InMemory()
    check_images(dataset)
    one, other = dataset.digests
    assert one[0] == other[1]
    assert len({*one.tolist(), *other.tolist()}) == 3
