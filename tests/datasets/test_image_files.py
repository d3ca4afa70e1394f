"""Environments of image files, and errors for unreadable files."""

import pickle

import numpy as np
import pytest
import torch
from PIL import ImageFile
from torch.utils.data import DataLoader

from domainbed.datasets.base import labels_of
from domainbed.datasets.image_decoding import UnreadableImage
from domainbed.datasets.image_files import ImageFiles, open_image
from domainbed.errors import RunError

# Since version 3.12, Python warns about forks of processes with threads; torch's loaders fork.
FORKS = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


def to_tensor(image):
    return torch.from_numpy(np.array(image))


@pytest.fixture
def samples(tmp_path, pictures):
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for picture, path in zip(pictures, paths, strict=False):
        picture.save(path)
    return [(str(path), i % 3) for i, path in enumerate(paths)]


def test_samples_are_the_images_of_the_files(samples, pictures):
    dataset = ImageFiles(samples)
    assert len(dataset) == 5
    for i, (image, label) in enumerate(dataset[j] for j in range(5)):
        assert image.tobytes() == pictures[i].tobytes()
        assert label == i % 3


def test_labels_are_available_without_the_images():
    dataset = ImageFiles([("nowhere/1.png", 4), ("nowhere/2.png", 2)])
    assert labels_of(dataset).tolist() == [4, 2]


def test_plain_has_the_same_samples_with_the_other_transform(samples):
    dataset = ImageFiles(samples, lambda image: "augmented", lambda image: "plain")
    assert dataset[1] == ("augmented", 1)
    assert dataset.plain()[1] == ("plain", 1)
    assert dataset.plain().plain()[1] == ("plain", 1)
    assert dataset[1] == ("augmented", 1)
    assert dataset.plain().targets == dataset.targets
    assert ImageFiles(samples, lambda image: "only").plain()[0][0] == "only"


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_mode_is_read_as_rgb(tmp_path, pictures, mode):
    pictures[0].convert(mode).save(tmp_path / "image.tiff")
    assert open_image(str(tmp_path / "image.tiff")).mode == "RGB"


def test_a_truncated_file_is_read(tmp_path, pictures):
    path = tmp_path / "image.jpg"
    pictures[0].save(path)
    path.write_bytes(path.read_bytes()[:-200])
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        dataset = ImageFiles([(str(path), 0)], to_tensor)
        assert ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = False  # as in a spawned worker process
        assert tuple(dataset[0][0].shape) == (64, 64, 3)
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def _damage(path, how):
    if how == "gone":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("<html>not found</html>")
    else:
        content = bytearray(path.read_bytes())
        content[33:60] = bytes(27)
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["gone", "empty", "text", "scrambled"])
def test_an_unreadable_file_is_named_in_one_line(tmp_path, samples, how):
    _damage(tmp_path / "3.png", how)
    dataset = ImageFiles(samples, to_tensor)
    with pytest.raises(
        RunError, match=r"^image .*3\.png cannot be read \(.*replace it or delete it$"
    ) as raised:
        dataset[3]
    assert "\n" not in str(raised.value)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


@FORKS
def test_the_error_of_a_worker_process_is_the_same_line(tmp_path, samples):
    _damage(tmp_path / "3.png", "text")
    loader = DataLoader(ImageFiles(samples, to_tensor), batch_size=5, num_workers=1)
    batches = iter(loader)
    with pytest.raises(UnreadableImage, match=r"^image .*3\.png cannot be read \(.*delete it$") as raised:
        next(batches)
    assert "\n" not in str(raised.value)
    batches._shutdown_workers()  # the error keeps a reference to the iterator


@FORKS
@pytest.mark.parametrize("workers", [0, 2])
def test_torchs_loader_loads_it(samples, pictures, workers):
    loader = DataLoader(ImageFiles(samples, to_tensor), batch_size=2, num_workers=workers)
    batches = list(loader)
    assert torch.cat([y for _, y in batches]).tolist() == [0, 1, 2, 0, 1]
    assert batches[0][1].dtype == torch.int64
    assert torch.equal(batches[2][0][0], to_tensor(pictures[4]))
