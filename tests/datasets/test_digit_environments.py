"""Colours, labels and rotations of digits, and their distribution over environments."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional

from domainbed.datasets.digit_environments import COLORS, colored, distribute, rotate_like_pil

N = 20_000


def within(hits, probability, sigmas=4.5):
    """Whether the number of true `hits` is within `sigmas` standard deviations of its expectation."""
    spread = math.sqrt(len(hits) * probability * (1 - probability))
    return abs(int(hits.sum()) - len(hits) * probability) < sigmas * spread


@pytest.fixture(scope="module")
def digits():
    """Images without black pixels, and labels 0 to 9."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (N,), generator=generator)
    return torch.randint(1, 256, (N, 2, 2), dtype=torch.uint8, generator=generator), labels


@pytest.mark.parametrize("flip", COLORS.values())
def test_label_noise_and_colour_noise_have_their_probabilities_and_are_independent(digits, flip):
    images, labels = digits
    torch.manual_seed(1)
    environment = colored(images, labels, flip)
    used = environment.images.flatten(2).all(2)
    assert (used.sum(1) == 1).all(), "each digit has one colour"
    x, y = environment.batch(np.arange(N))
    torch.testing.assert_close(x.sum(1), images / 255)
    right = (labels < 5).long()
    color = used[:, 1].long()
    assert within(y != right, 0.25)
    assert within(color != y, flip)
    # Colour noise is independent of label noise, and label noise of the digit.
    assert within((color != y)[y != right], flip)
    assert all(within((y != right)[labels == digit], 0.25) for digit in range(10))


def test_equal_seeds_give_equal_environments(digits):
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(colored(*digits, 0.1))
    assert torch.equal(made[0].images, made[1].images)
    assert torch.equal(made[0].targets, made[1].targets)
    assert not torch.equal(made[0].targets, made[2].targets)


def test_grey_digits_fill_both_channels_and_keep_the_labels(digits):
    torch.manual_seed(1)
    in_colour = colored(*digits, 0.1)
    torch.manual_seed(1)
    grey = colored(*digits, 0.1, grey=True)
    assert torch.equal(grey.targets, in_colour.targets)
    assert torch.equal(grey.images, digits[0].unsqueeze(1).expand(-1, 2, -1, -1))


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 6))
def test_every_image_is_in_one_environment_with_its_label(n, k):
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1)
    distributed = distribute(images, torch.arange(n), range(k), lambda x, y, i: (x.flatten().long(), y, i))
    assert [i for _, _, i in distributed] == list(range(k))
    assert all(torch.equal(x, y) for x, y, _ in distributed)
    assert sorted(torch.cat([y for _, y, _ in distributed]).tolist()) == list(range(n))
    sizes = [len(y) for _, y, _ in distributed]
    assert max(sizes) - min(sizes) <= 1


ANGLES_OF_ROTATED_MNIST = (0, 15, 30, 45, 60, 75)


def rotated_by_torchvision(images, angle):
    bilinear = functional.InterpolationMode.BILINEAR
    return np.stack(
        [
            np.asarray(functional.rotate(Image.fromarray(image), angle, fill=(0,), interpolation=bilinear))
            for image in images
        ]
    )


def noise(rng, shape):
    return rng.integers(0, 256, shape, dtype=np.uint8)


def black_and_white(rng, shape):
    return 255 * rng.integers(0, 2, shape, dtype=np.uint8)


def nearly_white(rng, shape):
    return 254 + rng.integers(0, 2, shape, dtype=np.uint8)


def one_grey(rng, shape):
    """Constant images, which interpolation must not change although it rounds down."""
    return np.broadcast_to(noise(rng, (shape[0], 1, 1)), shape)


def strokes(rng, shape):
    """Soft spots on black, similar to digits."""
    n, height, width = shape
    row, column = np.mgrid[:height, :width]
    images = np.zeros(shape)
    for _ in range(4):
        y, x = rng.uniform(0.2, 0.8, (2, n, 1, 1))
        radius = rng.uniform(1, 4, (n, 1, 1))
        images += np.exp(-((row - y * height) ** 2 + (column - x * width) ** 2) / radius**2)
    return (np.minimum(images, 1) * 255).astype(np.uint8)


KINDS = (noise, black_and_white, nearly_white, one_grey, strokes)


@pytest.mark.parametrize("angle", ANGLES_OF_ROTATED_MNIST)
def test_rotation_equals_torchvisions_for_images_of_mnists_size(angle):
    rng = np.random.default_rng(angle)
    images = np.concatenate([kind(rng, (400, 28, 28)) for kind in KINDS])
    np.testing.assert_array_equal(rotate_like_pil(images, angle), rotated_by_torchvision(images, angle))


angles = st.one_of(
    st.integers(-24, 24).map(lambda steps: 15 * steps),
    st.floats(-1000, 1000),
    st.builds(lambda quarters, off: 90 * quarters + off, st.integers(-4, 4), st.floats(-1e-6, 1e-6)),
)
sides = st.integers(1, 40)


@given(sides, sides, st.booleans(), angles, st.sampled_from(KINDS), st.integers(0, 1000))
def test_rotation_equals_torchvisions_for_any_size_and_angle(height, width, square, angle, kind, seed):
    images = kind(np.random.default_rng(seed), (3, height, height if square else width))
    np.testing.assert_array_equal(rotate_like_pil(images, angle), rotated_by_torchvision(images, angle))


HARD_GRIDS = [
    (27, 44, -270),  # source points on the border, where the last bit decides between a pixel and the fill
    (27, 20, -90),
    (7, 15, -150),
    (23, 11, -150),
    (31, 31, 123),  # values next to a whole number, where another order of operations rounds differently
    (39, 39, -86),
    (37, 33, -102),
    (10, 32, 1.0616456975610167e-13),
    (33, 44, -180.00000000000048),
]


@pytest.mark.parametrize(("height", "width", "angle"), HARD_GRIDS)
def test_rotation_equals_torchvisions_where_the_last_bit_decides(height, width, angle):
    rng = np.random.default_rng(0)
    images = np.concatenate([kind(rng, (20, height, width)) for kind in KINDS])
    np.testing.assert_array_equal(rotate_like_pil(images, angle), rotated_by_torchvision(images, angle))


@given(sides, st.integers(-8, 8))
def test_quarter_turns_of_square_images_equal_rot90(side, quarters):
    images = noise(np.random.default_rng(side), (2, side, side))
    rotated = rotate_like_pil(images, 90 * quarters)
    np.testing.assert_array_equal(rotated, np.rot90(images, quarters, axes=(1, 2)))
    assert not np.shares_memory(rotated, images)


def test_rotation_of_images_that_are_not_contiguous():
    images = noise(np.random.default_rng(0), (30, 28, 28))
    before = images.copy()
    whole = rotate_like_pil(images, 33)
    np.testing.assert_array_equal(rotate_like_pil(images[1::3], 33), whole[1::3])
    np.testing.assert_array_equal(images, before)


def test_rotation_of_no_images():
    assert rotate_like_pil(np.zeros((0, 28, 28), np.uint8), 15).shape == (0, 28, 28)


@pytest.mark.parametrize("images", [np.zeros((2, 3, 4)), np.zeros((3, 4), np.uint8)])
def test_rotation_refuses_other_dtypes_and_shapes(images):
    with pytest.raises(ValueError, match=r"pass uint8 of shape \(N, H, W\)"):
        rotate_like_pil(images, 15)


@pytest.mark.parametrize("angle", [float("nan"), float("inf")])
def test_a_rotation_angle_must_be_finite(angle):
    with pytest.raises(ValueError, match="pass a finite number"):
        rotate_like_pil(np.zeros((1, 2, 2), np.uint8), angle)
