"""Random crops and resizing, compared with torchvision and PIL."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop, functional

from domainbed.images import crops

DRAWN = 1500


def drawn(size, count=DRAWN, seed=0):
    uniforms = np.random.default_rng(seed).random((count, crops.TRIES, 4))
    return crops.boxes(uniforms, np.tile(size, (count, 1)))


@pytest.mark.parametrize("size", [(227, 227), (200, 300), (227, 120)])
def test_crops_have_the_same_distribution_as_torchvisions(size):
    torch.manual_seed(0)
    image = torch.empty(3, *size)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, [0.7, 1.0], [3 / 4, 4 / 3]) for _ in range(DRAWN)], dtype=float
    )
    ours = drawn(size).astype(float)
    measures = {
        "top": lambda box: box[:, 0],
        "left": lambda box: box[:, 1],
        "area": lambda box: box[:, 2] * box[:, 3],
        "ratio": lambda box: box[:, 3] / box[:, 2],
        "middle": lambda box: (box[:, 0] + box[:, 2] / 2) * (box[:, 1] + box[:, 3] / 2),
    }
    for name, measure in measures.items():
        assert ks_2samp(measure(ours), measure(theirs)).pvalue > 1e-3, name


@pytest.mark.parametrize("size", [(20, 200), (200, 20), (3, 400)])
def test_crops_of_very_long_images_are_central_as_in_torchvision(size):
    theirs = RandomResizedCrop.get_params(torch.empty(3, *size), [0.7, 1.0], [3 / 4, 4 / 3])
    assert (drawn(size, count=20) == np.array(theirs)).all()


@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 10**6))
def test_crops_lie_within_the_image(height, width, seed):
    top, left, h, w = drawn((height, width), count=20, seed=seed).T
    assert (np.stack([top, left]) >= 0).all()
    assert (np.stack([h, w]) >= 1).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()


@pytest.fixture(scope="module")
def cases(pictures):
    """Images of several sizes with crops and flips. Crops are larger and smaller than the results."""
    images = [pictures[i].resize(size) for i, size in enumerate([(60, 50), (227, 227), (90, 200), (331, 97)])]
    boxes = np.array([[3, 5, 40, 52], [0, 0, 227, 227], [10, 1, 160, 80], [0, 100, 97, 210]])
    return images, boxes, np.array([True, False, False, True])


def expected(images, boxes, flips, side):
    found = []
    for image, box, flip in zip(images, boxes.tolist(), flips, strict=True):
        resized = functional.resized_crop(image, *box, [side, side])
        found.append(np.array(functional.hflip(resized) if flip else resized))
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float()


@pytest.mark.parametrize("side", [32, 64, 224])
def test_resizing_one_crop_equals_pils(cases, side):
    images, boxes, flips = cases
    ours = torch.stack(
        [
            crops.resized_crop(torch.from_numpy(np.array(image)), box, side, flip)
            for image, box, flip in zip(images, boxes, flips, strict=True)
        ]
    )
    assert (ours.float() - expected(*cases, side)).abs().max() <= 1


@pytest.mark.parametrize("side", [32, 64, 224])
def test_resizing_many_crops_equals_pils(cases, side):
    images, boxes, flips = cases
    sizes = np.array([image.size[::-1] for image in images])
    padded = torch.full((len(images), *sizes.max(axis=0).tolist(), 3), 255, dtype=torch.uint8)
    for i, image in enumerate(images):
        padded[i, : sizes[i, 0], : sizes[i, 1]] = torch.from_numpy(np.array(image))
    assert (crops.resized_crops(padded, boxes, side, flips) - expected(*cases, side)).abs().max() <= 1
