"""Cache files that are cut, changed or deleted."""

import logging
import os
import re
import shutil
from pathlib import Path

import pytest

from domainbed.errors import RunError


def flip(position):
    def change(path):
        data = bytearray(path.read_bytes())
        data[position] ^= 4
        path.write_bytes(data)

    return change


DAMAGE = {
    "cut": (lambda path: os.truncate(path, path.stat().st_size - 100), r"it has \d+ bytes, not \d+"),
    "cut to nothing": (lambda path: os.truncate(path, 0), "it does not begin as expected"),
    "cut in its first part": (lambda path: os.truncate(path, 300), "it ends early"),
    "longer": (lambda path: os.truncate(path, path.stat().st_size + 1), r"it has \d+ bytes, not \d+"),
    "first byte flipped": (flip(0), "it does not begin as expected"),
    "byte of the first part flipped": (flip(200), "its first part has changed"),
    "pixel flipped": (flip(-1000), "the pixels of image 4 have changed"),
    "last pixel flipped": (flip(-1), "the pixels of image 5 have changed"),
    "zeros": (lambda path: path.write_bytes(bytes(path.stat().st_size)), "it does not begin as expected"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_file_is_made_again_and_that_is_said(
    environment, tmp_path, caplog, damage, cache, assert_right
):
    change, reason = DAMAGE[damage]
    cache(environment, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*.images")
    whole = path.read_bytes()
    change(path)
    with caplog.at_level(logging.WARNING):
        assert_right(cache(environment, tmp_path / "cache"), environment)
    (message,) = caplog.messages
    expected = rf"warning: image cache {path} is damaged \({reason}\); it is made again"
    assert re.fullmatch(expected, message)
    caplog.clear()
    assert path.read_bytes() == whole
    assert environment.logged == sorted([*range(6)] * 2)


def test_a_deleted_cache_file_is_made_again_and_that_is_said(
    environment, tmp_path, caplog, cache, assert_right
):
    cache(environment, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*.images")
    path.unlink()
    with caplog.at_level(logging.WARNING):
        assert_right(cache(environment, tmp_path / "cache"), environment)
    assert caplog.messages == [f"warning: image cache {path} is missing; it is made again"]
    caplog.clear()


def test_hashes_that_are_lost_or_damaged_are_computed_again(environment, tmp_path, cache, assert_right):
    cache(environment, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*.contents")
    for change in (Path.unlink, flip(-1), flip(3), lambda path: os.truncate(path, 50)):
        change(path)
        assert_right(cache(environment, tmp_path / "cache"), environment)
    assert environment.logged == list(range(6))


@pytest.mark.parametrize("left", [0, 5000])
def test_a_process_whose_cache_file_is_cut_while_it_reads_lives_and_gets_the_right_pixels(
    environment, tmp_path, left, caplog, cache, assert_right, in_a_fork
):
    cache(environment, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*.images")
    ready, go = os.pipe(), os.pipe()

    def read_before_and_after():
        images = cache(environment, tmp_path / "cache")
        images[0]
        os.write(ready[1], b"r")
        os.read(go[0], 1)
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                assert_right(images, environment)
        line = f"warning: image cache {path} is damaged (it was cut while it was in use); it is made again"
        assert caplog.messages == [line]

    process = in_a_fork(read_before_and_after)
    os.read(ready[0], 1)
    os.truncate(path, left)
    os.write(go[1], b"g")
    assert os.waitpid(process, 0)[1] == 0  # no SIGBUS
    for end in (*ready, *go):
        os.close(end)
    assert_right(cache(environment, tmp_path / "cache"), environment)


def test_a_deleted_cache_folder_does_not_disturb_the_images_that_are_open(
    environment, tmp_path, caplog, cache, assert_right
):
    images = cache(environment, tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    assert_right(images, environment)
    assert caplog.messages == []


def test_images_are_decoded_at_each_access_if_a_damaged_cache_file_cannot_be_made_again(
    environment, tmp_path, caplog, cache, assert_right
):
    images = cache(environment, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*.images")
    os.truncate(path, 0)
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").touch()
    with caplog.at_level(logging.WARNING):
        assert_right(images, environment)
    first, second = caplog.messages
    assert first.endswith("is damaged (it was cut while it was in use); it is made again")
    reason = "(Not a directory); images are decoded at each access"
    assert second == f"warning: image cache {path} cannot be made again {reason}"
    caplog.clear()


def test_a_damaged_cache_file_of_changed_images_stops_the_run(environment, tmp_path, caplog, cache):
    images = cache(environment, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*.images")
    os.truncate(path, 0)
    shutil.copy(environment.samples[1][0], environment.samples[0][0])
    with pytest.raises(RunError, match="image files of a name were changed during the run; start it again"):
        images[0]
    caplog.clear()


def test_several_processes_make_a_damaged_cache_file_again_once(
    environment, tmp_path, cache, assert_right, in_a_fork
):
    cache(environment, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*.images")
    images = cache(environment, tmp_path / "cache")
    os.truncate(path, 5000)
    processes = [in_a_fork(lambda: assert_right(images, environment)) for _ in range(3)]
    assert [os.waitpid(process, 0)[1] for process in processes] == [0, 0, 0]
    assert environment.logged == sorted([*range(6)] * 2)
