"""Colour jitter, compared with PIL."""

import numpy as np
import pytest
import torch
from torchvision.transforms import functional

from domainbed.images import colors

FACTORS = (0.7, 0.83, 1.0, 1.1234, 1.3)
TURNS = (-0.3, -0.111, 0.0, 0.05, 0.3)


@pytest.fixture(scope="module")
def images(pictures):
    """(8, 3, H, W)."""
    return torch.stack([as_bytes(picture) for picture in pictures])


def as_bytes(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()


def by_pil(change, pictures, value):
    return torch.stack([as_bytes(getattr(functional, f"adjust_{change}")(each, value)) for each in pictures])


def column(*values):
    return torch.tensor(values).view(-1, 1, 1, 1)


def steps(turn):
    """A turn of the hue in PIL's steps, rounded as by torchvision."""
    return float(np.trunc(255 * turn) % 256)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("change", ["brightness", "contrast", "saturation"])
def test_brightness_contrast_and_saturation_equal_pils_to_the_bit(change, factor, images, pictures):
    changed = getattr(colors, change)(images.clone(), column(factor))
    assert torch.equal(changed, by_pil(change, pictures, factor))


def test_greyscale_equals_pils_to_the_bit(images, pictures):
    expected = torch.stack([as_bytes(functional.rgb_to_grayscale(each, 3)) for each in pictures])
    assert torch.equal(colors.grey(images.clone()), expected)


@pytest.mark.parametrize("turn", TURNS)
def test_hue_equals_pils_except_for_pixels_between_two_hues(turn, images, pictures):
    changed = colors.hue(images.clone(), column(steps(turn)))
    away = (changed - by_pil("hue", pictures, turn)).abs()
    assert (away == 0).float().mean() > 0.99
    assert (away <= 1).float().mean() > 0.998
    assert away.max() <= 7  # neighbouring hues of PIL differ by at most six values


def test_hue_does_not_change_grey_images():
    x = torch.arange(256.0).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(colors.hue(x.clone(), column(77.0)), x)


def test_hue_rotates_pure_colours():
    pure = torch.tensor(
        [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255], [255, 0, 255.0]]
    )
    x = pure.T.reshape(1, 3, 1, 6)
    turned = colors.hue(x.clone(), column(85.0))
    assert torch.equal(turned[:, :, 0, :3], x[:, :, 0, [1, 2, 0]])


def test_each_image_of_a_batch_is_jittered_in_its_own_order(images, pictures):
    rng = np.random.default_rng(0)
    orders = rng.random((8, 4)).argsort(axis=1)
    factors = rng.uniform(0.7, 1.3, (8, 3))
    turns = rng.uniform(-0.3, 0.3, 8)
    given = torch.tensor(np.column_stack([factors, np.trunc(255 * turns) % 256]), dtype=torch.float32)
    batch = colors.jitter(images.clone(), given, orders)
    for i, picture in enumerate(pictures):
        alone = colors.jitter(images[i : i + 1].clone(), given[i : i + 1], orders[i : i + 1])
        assert torch.equal(alone[0], batch[i])
        for number in orders[i]:
            change = ("brightness", "contrast", "saturation", "hue")[number]
            picture = getattr(functional, f"adjust_{change}")(picture, [*factors[i], turns[i]][number])
        away = (alone[0] - as_bytes(picture)).abs()
        assert (away <= 1).float().mean() > 0.99
