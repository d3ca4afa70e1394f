"""Unreadable images, and images that are in several environments."""

import logging
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from domainbed.datasets import get_dataset_class
from domainbed.datasets.base import MultipleDomainDataset
from domainbed.datasets.hashes import image_digest
from domainbed.datasets.image_checks import check_images, warn_about_copies
from domainbed.errors import RunError
from domainbed.images.prepared import prepare
from domainbed.training.config import TrainConfig
from domainbed.training.run import build

COUNTS = {"ink": {"cat": 2, "dog": 2}, "oil": {"cat": 2, "dog": 2}, "wood": {"cat": 2, "dog": 2}}
HPARAMS = {"data_augmentation": True, "input_size": 16}
RUN_HPARAMS = '{"input_size": 16, "featurizer": "mlp"}'


@pytest.fixture
def folder(tmp_path, write_tree):
    write_tree(tmp_path / "paintings", COUNTS)
    return tmp_path / "paintings"


def load(folder):
    return get_dataset_class(str(folder))(None, [0], HPARAMS)


def warnings_about_copies(caplog):
    messages = [message for message in caplog.messages if "another environment" in message]
    caplog.clear()
    return messages


def test_reading_all_images_sets_their_digests_and_shows_progress(folder, terminal):
    dataset, shown = load(folder), terminal()
    check_images(dataset)
    assert [len(digests) for digests in dataset.image_digests] == [4, 4, 4]
    assert "reading images: " in shown.getvalue()
    assert "0/12 [" in shown.getvalue()


def test_unreadable_images_are_counted_and_the_first_three_named(folder):
    damaged = sorted(folder.glob("*/dog/*"))[:4]
    for image in damaged:
        image.write_bytes(b"no image")
    with pytest.raises(RunError, match=r"4 of 12 images of paintings cannot be read: ") as caught:
        check_images(load(folder))
    line = str(caught.value)
    assert [str(image) in line for image in damaged] == [True, True, True, False]
    assert line.endswith(", ...; replace or delete them")
    assert "\n" not in line


def test_a_run_reads_all_images_first_if_check_images_is_set(folder):
    (folder / "wood/cat/1.png").write_bytes(b"no image")
    with pytest.raises(RunError, match=r"1 of 12 images of paintings .*wood/cat/1\.png; replace"):
        build(TrainConfig(dataset=str(folder), hparams=RUN_HPARAMS, check_images=True))


def test_digests_of_inputs_in_memory():
    class InMemory(MultipleDomainDataset):
        ENVIRONMENTS = ("a", "b")

        def __init__(self):
            x = torch.arange(12.0).view(2, 2, 3)
            x[1, 1] = x[0, 0]
            self.datasets = [TensorDataset(inputs, torch.zeros(2)) for inputs in x]

    dataset = InMemory()
    check_images(dataset)
    one, other = dataset.image_digests
    assert one[0] == other[1]
    assert len({*one.tolist(), *other.tolist()}) == 3


@pytest.mark.parametrize(
    "settings", [{}, {"cache_dir": "none", "check_images": True}, {"check_images": True}]
)
def test_a_run_warns_once_about_images_that_are_also_in_another_environment(
    folder, caplog, settings, tmp_path
):
    settings = {
        "dataset": str(folder),
        "hparams": RUN_HPARAMS,
        "cache_dir": str(tmp_path / "cache"),
    } | settings
    with caplog.at_level(logging.WARNING):
        build(TrainConfig(**settings))
        assert warnings_about_copies(caplog) == []
        shutil.copy(folder / "ink/cat/0.png", folder / "ink/cat/copy.png")
        build(TrainConfig(**settings))
        assert warnings_about_copies(caplog) == []
        shutil.copy(folder / "ink/cat/0.png", folder / "oil/dog/copy.png")
        for _ in range(2):  # the first run decodes the images, the second reads them from the cache
            build(TrainConfig(**settings))
            (message,) = warnings_about_copies(caplog)
            assert message == (
                "warning: 1 of 14 images of paintings are also in another environment: "
                f"{folder / 'ink/cat/0.png'} = {folder / 'oil/dog/copy.png'}"
            )


def test_images_are_compared_only_if_they_were_read(folder, caplog):
    shutil.copy(folder / "ink/cat/0.png", folder / "oil/dog/copy.png")
    dataset = load(folder)
    with caplog.at_level(logging.WARNING):
        prepare(dataset, None, torch.device("cpu"))
        assert warnings_about_copies(caplog) == []
        check_images(dataset)
        prepare(dataset, None, torch.device("cpu"))
        assert len(warnings_about_copies(caplog)) == 1


def test_environments_that_are_not_cached_are_read_too(folder, tmp_path):
    dataset = get_dataset_class(str(folder))(None, [0], HPARAMS | {"augmentation": "pil"})
    shutil.copy(folder / "ink/cat/0.png", folder / "oil/dog/copy.png")
    prepare(dataset, tmp_path / "cache", torch.device("cpu"))
    assert [len(each) for each in dataset.image_digests] == [4, 0, 0]
    dataset = get_dataset_class(str(folder))(None, [0], HPARAMS | {"augmentation": "pil"})
    prepare(dataset, tmp_path / "cache", torch.device("cpu"), check=True)
    for known in (dataset.image_digests, dataset.image_findings, dataset.image_contents):
        assert [len(each) for each in known] == [4, 5, 4]


class Empty(MultipleDomainDataset):
    ENVIRONMENTS = ("a", "b", "c")

    def __init__(self):
        self.datasets = [(), (), ()]


@given(st.lists(st.lists(st.integers(0, 8), max_size=6), min_size=3, max_size=3))
def test_an_image_is_a_copy_if_its_first_instance_is_in_another_environment_or_earlier_in_its_own(contents):
    first, elsewhere, within = {}, [], []
    for number, values in enumerate(contents):
        for index, value in enumerate(values):
            name = f"{'abc'[number]}[{index}]"
            before = first.setdefault(value, name)
            if before[0] != name[0]:
                elsewhere.append(f"{before} = {name}")
            if values.index(value) < index:
                within.append(f"{'abc'[number]}[{values.index(value)}] = {name}")
    log = logging.getLogger("domainbed.datasets.image_checks")
    records = []
    log.addFilter(records.append)
    try:
        warn_about_copies(Empty(), [np.array(values, dtype=np.uint64) for values in contents])
    finally:
        log.removeFilter(records.append)
    texts = "are also in another environment", "have the same pixels as an earlier one of their environment"
    expected = []
    for text, pairs in zip(texts, (elsewhere, within), strict=True):
        if pairs:
            shown = ", ".join(pairs[:3]) + (", ..." if len(pairs) > 3 else "")
            numbers = f"{len(pairs)} of {sum(map(len, contents))} images of Empty"
            expected.append(f"warning: {numbers} {text}: {shown}")
    assert [record.getMessage() for record in records] == expected


def test_a_digest_depends_on_shape_dtype_and_every_pixel():
    x = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    others = [x.reshape(4, 1, 3), x.astype(np.int8), x.transpose(1, 0, 2), x + np.uint8(1)]
    assert len({image_digest(x), *map(image_digest, others)}) == 5
    assert image_digest(x[::-1][::-1]) == image_digest(x)
