"""Datasets made from the MNIST files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

import domainbed
from domainbed.datasets import contract, get_dataset_class
from domainbed.errors import RunError, UsageError

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "datasets_golden.json").read_text())
SIZES = {"ColoredMNIST": [30, 30, 30], "RotatedMNIST": [15] * 6, "ColoredMNIST_IRM": [25, 25, 10]}
NAMES = tuple(SIZES)


@pytest.fixture
def root(tmp_path, write_mnist):
    """A data directory with the 60 and 30 images for which the golden numbers were computed."""
    write_mnist(tmp_path)
    return tmp_path


def build(name, root):
    torch.manual_seed(0)
    return get_dataset_class(name)(str(root), [0], {})


def test_colored_mnist_equals_upstream(root):
    dataset = build("ColoredMNIST", root)
    for environment, golden in zip(dataset.datasets, GOLDEN["ColoredMNIST"], strict=True):
        x, y = environment.batch(np.arange(len(environment)))
        assert tuple(x.shape) == (golden["n"], 2, 28, 28)
        assert x.sum(dtype=torch.float64).item() == pytest.approx(golden["x_sum"], rel=1e-9)
        assert x[:, 0].sum(dtype=torch.float64).item() == pytest.approx(golden["x_sum_channel0"], rel=1e-9)
        assert y.tolist() == golden["y"] == environment.targets.tolist()
        assert y.dtype == torch.int64


def test_rotated_mnist_equals_upstream(root):
    dataset = build("RotatedMNIST", root)
    for environment, golden in zip(dataset.datasets, GOLDEN["RotatedMNIST"], strict=True):
        x, y = environment.batch(np.arange(len(environment)))
        assert tuple(x.shape) == (golden["n"], 1, 28, 28)
        pixels = (x * 255).round().long()
        assert pixels.sum().item() == golden["x_sum_times_255"]
        assert pixels[0, 0, 14].tolist() == golden["first_image_row_14_times_255"]
        assert y.tolist() == golden["y"]


def test_rotation_equals_torchvisions_of_pil_images_to_the_last_bit(root):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (5, 28, 28), dtype=torch.uint8, generator=generator)
    dataset = build("RotatedMNIST", root)
    for angle in (0, 15, 75, 90):
        environment = dataset.rotate_dataset(images, torch.arange(5), angle)
        for i, image in enumerate(images):
            rotated = functional.rotate(
                Image.fromarray(image.numpy()),
                angle,
                fill=(0,),
                interpolation=functional.InterpolationMode.BILINEAR,
            )
            assert torch.equal(environment[i][0], functional.to_tensor(rotated))


def test_each_digit_has_one_colour(root):
    for environment in build("ColoredMNIST", root).datasets:
        used = environment.images.flatten(2).amax(2) > 0
        assert (used.sum(1) == 1).all()


def test_the_irm_papers_environments_are_made_from_the_training_set_at_half_the_size(root):
    dataset = build("ColoredMNIST_IRM", root)
    again = build("ColoredMNIST_IRM", root)
    n, i, j = np.ogrid[:60, :28:2, :28:2]
    originals = [image.tobytes() for image in ((7 * n + 3 * i + 5 * j) % 256).astype(np.uint8)]
    digits = []
    for environment, same in zip(dataset.datasets, again.datasets, strict=True):
        assert torch.equal(environment.images, same.images)
        grey = environment.images.amax(1).numpy()
        digits.append({originals.index(image.tobytes()) for image in grey})
    assert [len(images) for images in digits] == [25, 25, 10]
    assert digits[0] | digits[1] == set(range(50))
    assert digits[2] == set(range(50, 60))


@pytest.mark.parametrize("name", NAMES)
def test_interface(name, root):
    dataset = build(name, root)
    assert dataset.input_shape == tuple(dataset[0][0][0].shape) == dataset.INPUT_SHAPE
    assert len(dataset) == len(dataset.ENVIRONMENTS)
    assert dataset.SMALL_IMAGES
    assert [sum(row.values()) for row in dataset.counts().values()] == SIZES[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_checksum_depends_on_the_files_and_not_on_the_seed(name, tmp_path, write_mnist):
    checksums = []
    write_mnist(tmp_path, train=420, test=60)
    for seed, change in ((0, None), (1, None), (1, "images-idx3"), (1, "labels-idx1")):
        if change:
            path = tmp_path / f"MNIST/raw/train-{change}-ubyte"
            path.write_bytes(
                path.read_bytes()[:-1] + b"\7"
            )  # changes the last digit's last pixel, or its label
        torch.manual_seed(seed)
        dataset = contract.build(get_dataset_class(name), str(tmp_path), [0], {})
        checksums.append(dataset.summary["checksum"])
    assert checksums[0] == checksums[1]
    assert len(set(checksums)) == 3


@pytest.mark.parametrize("name", NAMES)
def test_an_error_names_all_missing_files(name, tmp_path):
    cls = get_dataset_class(name)
    with pytest.raises(ValueError, match=r"^Data directory not specified!") as raised:
        cls(None, [], {})
    assert str(raised.value) == "Data directory not specified!"
    assert "--data_dir" in cls.missing(None)
    with pytest.raises(UsageError, match=r"MNIST/raw, which lacks train-images-idx3-ubyte, .*t10k-labels"):
        cls(str(tmp_path), [], {})


def test_an_error_names_only_the_missing_files(root):
    (root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    message = get_dataset_class("RotatedMNIST").missing(str(root))
    assert "which lacks t10k-labels-idx1-ubyte; " in message


def test_a_damaged_file_fails_in_one_line(root):
    path = root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"MNIST/raw are damaged"):
        build("RotatedMNIST", root)


@pytest.mark.parametrize("name", NAMES)
def test_five_steps_of_training(name, tmp_path, write_mnist, assert_cache_changes_nothing):
    write_mnist(tmp_path, *((420, 60) if name == "RotatedMNIST" else (60, 30)))
    assert_cache_changes_nothing(name, tmp_path, in_memory=True)


@pytest.fixture
def test_part(root):
    """The data directory without the files of the training set."""
    for path in (root / "MNIST" / "raw").glob("train-*"):
        path.unlink()
    return root


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("ColoredMNIST", [10] * 3), ("RotatedMNIST", [5] * 6), ("ColoredMNIST_IRM", [13, 12, 5])],
)
def test_the_test_set_alone_needs_two_files_and_makes_smaller_environments(name, sizes, test_part):
    hparams = {"mnist": "test"}
    cls = get_dataset_class(name)
    assert cls.missing_for(str(test_part), hparams) is None
    torch.manual_seed(0)
    dataset = cls(str(test_part), [0], hparams)
    assert [len(environment) for environment in dataset.datasets] == sizes
    (test_part / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    message = cls.missing_for(str(test_part), hparams)
    assert "which lacks t10k-labels-idx1-ubyte; run " in message
    assert "--datasets MNIST_test" in message
    with pytest.raises(UsageError, match="lacks t10k-labels-idx1-ubyte"):
        cls(str(test_part), [0], hparams)


def test_without_the_training_set_an_error_says_how_to_use_the_test_set(test_part):
    message = get_dataset_class("ColoredMNIST").missing(str(test_part))
    assert """labels-idx1-ubyte (--hparams '{"mnist": "test"}' needs the test set alone); run """ in message


def test_a_run_on_the_test_set_needs_no_more_and_says_so_in_its_records(tmp_path, write_mnist):
    write_mnist(tmp_path, train=0, test=120)
    for path in (tmp_path / "MNIST" / "raw").glob("train-*"):
        path.unlink()
    settings = {"dataset": "ColoredMNIST", "data_dir": str(tmp_path), "steps": 1}
    hparams = {"mnist": "test", "batch_size": 2}
    domainbed.train(**settings, hparams=hparams, output_dir=str(tmp_path / "run"))
    (line,) = (tmp_path / "run" / "results.jsonl").read_text().splitlines()
    assert json.loads(line)["hparams"]["mnist"] == "test"
    with pytest.raises(UsageError, match=r"which lacks train-images-idx3-ubyte, train-labels-idx1-ubyte \("):
        domainbed.train(**settings, hparams={"batch_size": 2}, output_dir=str(tmp_path / "all"))


def test_another_value_is_refused_with_the_choices(root):
    with pytest.raises(UsageError, match=r"hyper-parameter mnist must be one of all, test, not 'tset'"):
        get_dataset_class("ColoredMNIST").missing_for(str(root), {"mnist": "tset"})


def test_files_that_do_not_belong_together_fail_in_one_line(root):
    labels = root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    labels.write_bytes((root / "MNIST" / "raw" / "train-labels-idx1-ubyte").read_bytes())
    with pytest.raises(RunError, match=r"MNIST/raw are damaged \(30 images, but 60 labels\)"):
        build("ColoredMNIST", root)
