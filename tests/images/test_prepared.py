"""Image environments as a run uses them, with and without the cache."""

import numpy as np
import pytest
import torch

from domainbed.datasets.base import MultipleDomainDataset
from domainbed.datasets.image_files import ImageFiles
from domainbed.datasets.image_transforms import AugmentingTransform, PlainTransform
from domainbed.datasets.splitting import SplitDataset
from domainbed.images.prepared import ImageStore, PreparedImages, prepare
from domainbed.training.minibatches import is_in_memory, load_minibatch

CPU = torch.device("cpu")
SAME = [(30, 30)] * 7
VARIED = [(30, 30), (90, 41), (20, 25), (33, 70), (200, 190), (12, 60), (30, 31)]
HPARAMS = {"input_size": 24}
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def environments(samples, transform, tmp_path, plain=None):
    """An environment of image files, and prepared environments without and with a cache."""
    files = ImageFiles(samples, transform, plain)
    stores = ImageStore(None, CPU), ImageStore(tmp_path / "cache", CPU)
    return files, *(PreparedImages("x", files, store) for store in stores)


@pytest.mark.parametrize("sizes", [SAME, VARIED])
@pytest.mark.parametrize("extra", [{}, {"stored_size": 27}, {"stored_size": 27, "reencode": True}])
def test_unaugmented_samples_are_equal_to_the_bit(sizes, extra, write_files, tmp_path):
    files, uncached, cached = environments(write_files(sizes), PlainTransform(HPARAMS | extra), tmp_path)
    assert (uncached.in_memory, cached.in_memory) == (False, True)
    order = np.array([3, 0, 6, 3])
    for environment in (uncached, cached):
        x, y = environment.augmented_batch(order, (0,))
        assert torch.equal(x, torch.stack([files[i][0] for i in order]))
        assert y.tolist() == [files[i][1] for i in order]
        assert torch.equal(environment[4][0], files[4][0])


@pytest.mark.parametrize("sizes", [SAME, VARIED])
@pytest.mark.parametrize("how", [{}, {"resize": True}, {"resize": True, "crop": False}])
def test_augmented_samples_do_not_depend_on_the_cache(sizes, how, write_files, tmp_path):
    samples = write_files(sizes)
    _, uncached, cached = environments(samples, AugmentingTransform(HPARAMS, **how), tmp_path)
    part, other = (SplitDataset(each, [6, 5, 4, 3, 2, 1, 0]) for each in (cached, uncached))
    assert (is_in_memory(part), is_in_memory(other)) == (True, False)
    x, y = load_minibatch(part, np.array([1, 1, 2]), (1, 2))
    assert y.tolist() == [2, 2, 1]
    assert not torch.equal(x[0], x[1])
    assert torch.equal(x, load_minibatch(other, np.array([1, 1, 2]), (1, 2))[0])
    assert torch.equal(x[:2], load_minibatch(part, np.array([1, 1]), (1, 2))[0])
    assert not torch.equal(x, load_minibatch(part, np.array([1, 1, 2]), (1, 3))[0])


def test_an_image_read_again_is_augmented_anew(write_files, tmp_path):
    """Also by itself, as a user of the dataset reads it."""
    _, uncached, cached = environments(write_files(SAME), AugmentingTransform(HPARAMS), tmp_path)
    torch.manual_seed(0)
    for environment in (uncached, cached):
        alone = torch.stack([environment[4][0] for _ in range(60)])
        together, _ = environment.augmented_batch(np.full(60, 4), (0,))
        for drawn in (alone, together):
            assert len(drawn.flatten(1).unique(dim=0)) == 60


def test_inputs_can_be_trained_on(write_files, tmp_path):
    """They are ordinary tensors, although augmentation runs in inference mode."""
    _, _, cached = environments(write_files(SAME), AugmentingTransform(HPARAMS), tmp_path)
    x, _ = cached.augmented_batch(np.arange(3), (0,))
    weight = torch.ones(3, 24, 24, requires_grad=True)
    (x * weight).sum().backward()
    assert torch.allclose(weight.grad, x.sum(0))


def test_the_plain_view_has_the_same_samples_without_augmentation(write_files, tmp_path):
    plain = PlainTransform(HPARAMS)
    files, uncached, cached = environments(write_files(VARIED), AugmentingTransform(HPARAMS), tmp_path, plain)
    expected = torch.stack([plain(files.image(i)) for i in range(7)])
    for environment in (uncached, cached):
        assert torch.equal(environment.plain().augmented_batch(np.arange(7), (0,))[0], expected)
        assert environment.plain().in_memory == environment.in_memory
        assert not torch.equal(environment.augmented_batch(np.arange(7), (0,))[0], expected)


def test_only_large_images_are_reduced_for_the_cache():
    cached_size = AugmentingTransform(HPARAMS).cached_size
    assert cached_size((36, 36)) == (36, 36)
    assert cached_size((100, 30)) == (100, 30)
    assert cached_size((100, 72)) == (50, 36)
    assert AugmentingTransform(HPARAMS, resize=True).cached_size((100, 72)) == (24, 24)
    assert AugmentingTransform(HPARAMS | {"stored_size": 27}).cached_size((100, 72)) == (27, 27)
    assert PlainTransform(HPARAMS).cached_size((100, 72)) == (24, 24)


def test_crops_of_a_reduced_image_nearly_equal_those_of_the_image(pictures):
    """For a resized crop of at least 70 % of the area."""
    transform = AugmentingTransform({"input_size": 24})
    image = pictures[2].resize((400, 300))
    reduced = transform.cached(image)
    assert reduced.size == (48, 36)
    box = (30, 15, 380, 290)
    expected = np.asarray(image.resize((24, 24), 2, box=box), dtype=float)
    found = np.asarray(reduced.resize((24, 24), 2, box=[0.12 * edge for edge in box]), dtype=float)
    assert np.abs(found - expected).mean() < 1.5
    assert np.diff(found, axis=0).std() == pytest.approx(np.diff(expected, axis=0).std(), rel=0.02)


class Pair(MultipleDomainDataset):
    ENVIRONMENTS = ("a", "b")

    def __init__(self, environments):
        self.datasets = environments


class OwnReader(ImageFiles):
    def __getitem__(self, index):
        return "its own sample", 0


def test_environments_with_their_own_reader_or_transform_are_not_replaced(write_files, tmp_path):
    samples = write_files(SAME)
    plain = ImageFiles(samples, PlainTransform(HPARAMS))
    others = (
        OwnReader(samples, PlainTransform(HPARAMS)),
        ImageFiles(samples),
        ImageFiles(samples, lambda image: image),
        ImageFiles(samples, AugmentingTransform(HPARAMS | {"augmentation": "pil"})),
    )
    for other in others:
        dataset = Pair([plain, other])
        prepare(dataset, tmp_path / "cache", CPU)
        assert isinstance(dataset[0], PreparedImages)
        assert dataset[1] is other


def test_a_prepared_environment_keeps_its_files(write_files, tmp_path):
    files, _, cached = environments(write_files(SAME), PlainTransform(HPARAMS), tmp_path)
    assert cached.paths() == files.paths()
    assert cached.image(3).tobytes() == files.image(3).tobytes()


@pytest.mark.parametrize("sizes", [SAME, VARIED])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_loading_a_minibatch_at_once_equals_loading_one_by_one(sizes, device, write_files, tmp_path):
    """With images that are on the device, and with images that are copied to it."""
    order, counters = np.array([4, 0, 6, 4, 1]), (5, 6)
    for transform in (PlainTransform(HPARAMS), AugmentingTransform(HPARAMS)):
        _, _, cached = environments(write_files(sizes, type(transform).__name__), transform, tmp_path)
        expected, _ = cached.augmented_batch(order, counters)
        target = torch.device(device)
        cached._store = ImageStore(tmp_path / "cache", target)
        decoded = cached._images
        for images in (decoded, decoded.to(target)):
            found = cached._load_at_once(images, order, counters)
            assert found.device.type == device
            away = (found.cpu() - expected).abs() * 255 * 0.226
            assert (away < 2.01).float().mean() > 0.97
            if not isinstance(transform, AugmentingTransform):
                assert away.max() < 1e-3


@needs_cuda
def test_images_of_a_run_on_a_gpu_are_on_the_gpu(write_files, tmp_path):
    files = ImageFiles(write_files(SAME), AugmentingTransform(HPARAMS), PlainTransform(HPARAMS))
    dataset = Pair([files, files.plain()])
    prepare(dataset, tmp_path / "cache", torch.device("cuda"))
    for environment in (*dataset.datasets, dataset[0].plain()):
        assert environment._images._pixels.is_cuda
        assert environment.augmented_batch(np.arange(3), (0,))[0].is_cuda
