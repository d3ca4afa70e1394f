import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional

from domainbed.datasets.rotation import rotate_like_pil

ANGLES_OF_ROTATED_MNIST = (0, 15, 30, 45, 60, 75)


def turned_by_torchvision(images, angle):
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
    """Every blend of equal neighbours must give them back, though the fraction is cut off."""
    return np.broadcast_to(noise(rng, (shape[0], 1, 1)), shape)


def strokes(rng, shape):
    """A few soft spots on black, as in a digit."""
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
def test_equals_torchvision_on_images_of_mnists_size(angle):
    rng = np.random.default_rng(angle)
    images = np.concatenate([kind(rng, (400, 28, 28)) for kind in KINDS])
    np.testing.assert_array_equal(rotate_like_pil(images, angle), turned_by_torchvision(images, angle))


angles = st.one_of(
    st.integers(-24, 24).map(lambda steps: 15 * steps),
    st.floats(-1000, 1000),
    st.builds(lambda quarters, off: 90 * quarters + off, st.integers(-4, 4), st.floats(-1e-6, 1e-6)),
)
sides = st.integers(1, 40)


@given(sides, sides, st.booleans(), angles, st.sampled_from(KINDS), st.integers(0, 1000))
def test_equals_torchvision_at_any_size_and_angle(height, width, square, angle, kind, seed):
    images = kind(np.random.default_rng(seed), (3, height, height if square else width))
    np.testing.assert_array_equal(rotate_like_pil(images, angle), turned_by_torchvision(images, angle))


HARD_GRIDS = [
    (27, 44, -270),  # source points on the border, where the last bit decides between pixel and fill
    (27, 20, -90),
    (7, 15, -150),
    (23, 11, -150),
    (31, 31, 123),  # blends within a bit of a whole number, which another order of operations cuts
    (39, 39, -86),
    (37, 33, -102),
    (10, 32, 1.0616456975610167e-13),
    (33, 44, -180.00000000000048),
]


@pytest.mark.parametrize(("height", "width", "angle"), HARD_GRIDS)
def test_equals_torchvision_where_the_last_bit_decides(height, width, angle):
    rng = np.random.default_rng(0)
    images = np.concatenate([kind(rng, (20, height, width)) for kind in KINDS])
    np.testing.assert_array_equal(rotate_like_pil(images, angle), turned_by_torchvision(images, angle))


@given(sides, st.integers(-8, 8))
def test_quarter_turns_of_a_square_move_pixels(side, quarters):
    images = noise(np.random.default_rng(side), (2, side, side))
    turned = rotate_like_pil(images, 90 * quarters)
    np.testing.assert_array_equal(turned, np.rot90(images, quarters, axes=(1, 2)))
    assert not np.shares_memory(turned, images)


def test_images_need_not_lie_next_to_each_other():
    images = noise(np.random.default_rng(0), (30, 28, 28))
    before = images.copy()
    whole = rotate_like_pil(images, 33)
    np.testing.assert_array_equal(rotate_like_pil(images[1::3], 33), whole[1::3])
    np.testing.assert_array_equal(images, before)


def test_no_images():
    assert rotate_like_pil(np.zeros((0, 28, 28), np.uint8), 15).shape == (0, 28, 28)


@pytest.mark.parametrize("images", [np.zeros((2, 3, 4)), np.zeros((3, 4), np.uint8)])
def test_other_arrays_are_refused(images):
    with pytest.raises(ValueError, match=r"pass uint8 of shape \(N, H, W\)"):
        rotate_like_pil(images, 15)


@pytest.mark.parametrize("angle", [float("nan"), float("inf")])
def test_an_angle_must_be_finite(angle):
    with pytest.raises(ValueError, match="pass a finite number"):
        rotate_like_pil(np.zeros((1, 2, 2), np.uint8), angle)
