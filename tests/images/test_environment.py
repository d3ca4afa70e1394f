import numpy as np
import pytest
import torch

from domainbed.datasets.base import MultipleDomainDataset
from domainbed.datasets.image_files import ImageFiles
from domainbed.datasets.image_transforms import AugmentingTransform, augmenting_transform, plain_transform
from domainbed.datasets.splitting import SplitDataset
from domainbed.images.environment import Place, PreparedImages, prepare
from domainbed.training.minibatches import in_memory, load_minibatch

CPU = torch.device("cpu")
SAME = [(30, 30)] * 7
VARIED = [(30, 30), (90, 41), (20, 25), (33, 70), (200, 190), (12, 60), (30, 31)]
HPARAMS = {"input_size": 24}
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def environments(samples, transform, tmp_path, plain=None):
    """Read from files, from files without a cache, and from the cache."""
    files = ImageFiles(samples, transform, plain)
    places = Place(None, CPU), Place(tmp_path / "cache", CPU)
    return files, *(PreparedImages("x", files, place) for place in places)


@pytest.mark.parametrize("sizes", [SAME, VARIED])
@pytest.mark.parametrize("extra", [{}, {"stored_size": 27}, {"stored_size": 27, "reencode": True}])
def test_without_augmentation_samples_are_the_same_to_the_bit(sizes, extra, write_files, tmp_path):
    files, uncached, cached = environments(write_files(sizes), plain_transform(HPARAMS | extra), tmp_path)
    assert (uncached.in_memory, cached.in_memory) == (False, True)
    order = np.array([3, 0, 6, 3])
    for environment in (uncached, cached):
        x, y = environment.drawn_batch(order, (0,))
        assert torch.equal(x, torch.stack([files[i][0] for i in order]))
        assert y.tolist() == [files[i][1] for i in order]
        assert torch.equal(environment[4][0], files[4][0])


@pytest.mark.parametrize("sizes", [SAME, VARIED])
@pytest.mark.parametrize("how", [{}, {"resize": True}, {"resize": True, "crop": False}])
def test_augmented_samples_do_not_depend_on_the_cache(sizes, how, write_files, tmp_path):
    samples = write_files(sizes)
    _, uncached, cached = environments(samples, augmenting_transform(HPARAMS, **how), tmp_path)
    part, other = (SplitDataset(each, [6, 5, 4, 3, 2, 1, 0]) for each in (cached, uncached))
    assert (in_memory(part), in_memory(other)) == (True, False)
    x, y = load_minibatch(part, np.array([1, 1, 2]), (1, 2))
    assert y.tolist() == [2, 2, 1]
    assert not torch.equal(x[0], x[1])
    assert torch.equal(x, load_minibatch(other, np.array([1, 1, 2]), (1, 2))[0])
    assert torch.equal(x[:2], load_minibatch(part, np.array([1, 1]), (1, 2))[0])
    assert not torch.equal(x, load_minibatch(part, np.array([1, 1, 2]), (1, 3))[0])


def test_inputs_can_be_trained_on(write_files, tmp_path):
    """They are ordinary tensors, whatever mode they were made in."""
    _, _, cached = environments(write_files(SAME), augmenting_transform(HPARAMS), tmp_path)
    x, _ = cached.drawn_batch(np.arange(3), (0,))
    weight = torch.ones(3, 24, 24, requires_grad=True)
    (x * weight).sum().backward()
    assert torch.allclose(weight.grad, x.sum(0))


def test_the_plain_view_has_the_same_samples_unchanged(write_files, tmp_path):
    plain = plain_transform(HPARAMS)
    files, uncached, cached = environments(
        write_files(VARIED), augmenting_transform(HPARAMS), tmp_path, plain
    )
    expected = torch.stack([plain(files.image(i)) for i in range(7)])
    for environment in (uncached, cached):
        assert torch.equal(environment.plain().drawn_batch(np.arange(7), (0,))[0], expected)
        assert environment.plain().in_memory == environment.in_memory
        assert not torch.equal(environment.drawn_batch(np.arange(7), (0,))[0], expected)


def test_large_images_are_reduced_and_small_ones_kept_as_they_are():
    kept = augmenting_transform(HPARAMS).kept_size
    assert kept((36, 36)) == (36, 36)
    assert kept((100, 30)) == (100, 30)
    assert kept((100, 72)) == (50, 36)
    assert augmenting_transform(HPARAMS, resize=True).kept_size((100, 72)) == (24, 24)
    assert augmenting_transform(HPARAMS | {"stored_size": 27}).kept_size((100, 72)) == (27, 27)
    assert plain_transform(HPARAMS).kept_size((100, 72)) == (24, 24)


def test_a_reduced_image_gives_nearly_the_same_crops(pictures):
    """A crop of 70 % or more of it, resized, against the crop of the image itself."""
    transform = augmenting_transform({"input_size": 24})
    image = pictures[2].resize((400, 300))
    reduced = transform.kept(image)
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


class Own(ImageFiles):
    def __getitem__(self, index):
        return "its own", 0


def test_what_reads_or_changes_images_in_its_own_way_stays_as_it_is(write_files, tmp_path):
    samples = write_files(SAME)
    plain = ImageFiles(samples, plain_transform(HPARAMS))
    others = (
        Own(samples, plain_transform(HPARAMS)),
        ImageFiles(samples),
        ImageFiles(samples, lambda image: image),
        ImageFiles(samples, augmenting_transform(HPARAMS | {"augmentation": "pil"})),
    )
    for other in others:
        dataset = Pair([plain, other])
        prepare(dataset, tmp_path / "cache", CPU)
        assert isinstance(dataset[0], PreparedImages)
        assert dataset[1] is other


def test_a_prepared_environment_still_knows_its_files(write_files, tmp_path):
    files, _, cached = environments(write_files(SAME), plain_transform(HPARAMS), tmp_path)
    assert cached.paths() == files.paths()
    assert cached.image(3).tobytes() == files.image(3).tobytes()


@pytest.mark.parametrize("sizes", [SAME, VARIED])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_a_minibatch_made_at_once_is_that_made_one_by_one(sizes, device, write_files, tmp_path):
    """As on a device, with images there and with images that are sent there."""
    order, draws = np.array([4, 0, 6, 4, 1]), (5, 6)
    for transform in (plain_transform(HPARAMS), augmenting_transform(HPARAMS)):
        _, _, cached = environments(write_files(sizes, type(transform).__name__), transform, tmp_path)
        expected, _ = cached.drawn_batch(order, draws)
        there = torch.device(device)
        cached._place = Place(tmp_path / "cache", there)
        held = cached._images
        for images in (held, held.to(there)):
            found = cached._together(images, order, draws)
            assert found.device.type == device
            away = (found.cpu() - expected).abs() * 255 * 0.226
            assert (away < 2.01).float().mean() > 0.97
            if not isinstance(transform, AugmentingTransform):
                assert away.max() < 1e-3


@needs_cuda
def test_a_run_on_a_device_has_its_images_there(write_files, tmp_path):
    files = ImageFiles(write_files(SAME), augmenting_transform(HPARAMS), plain_transform(HPARAMS))
    dataset = Pair([files, files.plain()])
    prepare(dataset, tmp_path / "cache", torch.device("cuda"))
    for environment in (*dataset.datasets, dataset[0].plain()):
        assert environment._images._pixels.is_cuda
        assert environment.drawn_batch(np.arange(3), (0,))[0].is_cuda
