"""Hashes of files and of pixels."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from domainbed.datasets.hashes import content_hash, file_hash, hash_array, image_digest


def test_files_are_hashed_by_their_contents(tmp_path):
    data = bytes(range(256)) * 9
    (tmp_path / "file").write_bytes(data)
    expected = hashlib.blake2b(data, digest_size=32).digest()
    assert file_hash(str(tmp_path / "file")) == content_hash(data) == expected
    assert hash_array([expected, expected]).tobytes() == 2 * expected
    assert hash_array(()).shape == (0, 32)


@settings(deadline=None)
@given(
    arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=24)),
    st.integers(1, 255),
    st.data(),
)
def test_a_digest_changes_with_any_value_shape_and_dtype(pixels, change, data):
    digest = image_digest(pixels)
    assert image_digest(pixels.copy()) == image_digest(np.asfortranarray(pixels)) == digest
    where = tuple(data.draw(st.integers(0, size - 1)) for size in pixels.shape)
    changed = pixels.copy()
    changed[where] ^= np.uint8(change)
    assert image_digest(changed) != digest
    assert image_digest(pixels.view(np.int8)) != digest
    assert image_digest(pixels.reshape(1, *pixels.shape)) != digest


@pytest.mark.parametrize("size", [1, 7, 8, 9, 8 * 4096 - 1, 8 * 4096, 8 * 4096 + 1, 3 * 8 * 4096 + 5])
def test_a_digest_changes_with_each_byte_at_the_edges_of_blocks(size):
    pixels = np.zeros(size, dtype=np.uint8)
    places = sorted({0, size - 1, size // 2, *(p for p in range(0, size, 8 * 4096)), max(0, size - 9)})
    digests = [image_digest(pixels)]
    for place in places:
        changed = pixels.copy()
        changed[place] = 128
        digests.append(image_digest(changed))
    assert len(set(digests)) == len(digests)


def test_digests_of_many_images_that_differ_in_one_pixel_differ():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 41, 3), dtype=np.uint8)
    images = set()
    for _ in range(4000):
        other = image.copy()
        other[rng.integers(40), rng.integers(41)] = rng.integers(0, 256, 3)
        images.add(other.tobytes())
    digests = {image_digest(np.frombuffer(each, dtype=np.uint8).reshape(image.shape)) for each in images}
    assert len(digests) == len(images)


def test_swapped_rows_give_another_digest():
    image = np.random.default_rng(1).integers(0, 256, (64, 512), dtype=np.uint8)
    digests = [image_digest(np.roll(image, i, axis=0)) for i in range(64)]
    assert len(set(digests)) == 64
