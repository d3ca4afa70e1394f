"""The cache of decoded images: contents, keys, folder and errors."""

import logging
import os
import re
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from domainbed.datasets.image_decoding import UnreadableImage
from domainbed.datasets.image_files import ImageFiles
from domainbed.datasets.image_transforms import AugmentingTransform, PlainTransform
from domainbed.images.cache import cache_folder
from domainbed.images.prepared import ImageStore

HPARAMS = {"input_size": 16}
SIZES = [(20, 20)] * 6


def files_in(folder):
    """Names of the cache files."""
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".images")


def test_files_are_decoded_once_for_all_runs(environment, tmp_path, cache):
    first = cache(environment, tmp_path / "cache")
    assert environment.logged == list(range(6))
    second = cache(environment, tmp_path / "cache")
    assert environment.logged == list(range(6))
    assert all(torch.equal(first[i], second[i]) for i in range(6))
    assert len(files_in(tmp_path / "cache")) == 1
    assert files_in(tmp_path / "cache")[0].startswith("a_name-")


def test_other_files_or_transforms_use_another_cache_file(environment, tmp_path, cache):
    folder = tmp_path / "cache"
    for count, change in enumerate(
        (
            lambda: None,
            lambda: Path(environment.samples[1][0]).write_bytes(Path(environment.samples[2][0]).read_bytes()),
            lambda: environment.samples.reverse(),
            lambda: environment.samples.pop() and environment.targets.pop(),
            lambda: setattr(environment, "transform", PlainTransform(HPARAMS | {"stored_size": 9})),
            lambda: setattr(environment, "transform", PlainTransform(HPARAMS | {"reencode": True})),
            lambda: setattr(environment, "transform", PlainTransform({"input_size": 8})),
            lambda: setattr(environment, "transform", AugmentingTransform(HPARAMS)),
            lambda: setattr(environment, "transform", AugmentingTransform(HPARAMS, resize=True)),
        ),
        start=1,
    ):
        change()
        cache(environment, folder)
        assert len(files_in(folder)) == count


def test_files_with_other_times_but_the_same_contents_use_the_same_cache_file(
    environment, tmp_path, cache, assert_right
):
    cache(environment, tmp_path / "cache")
    for path in environment.paths():
        os.utime(path, (1, 1))
    assert_right(cache(environment, tmp_path / "cache"), environment)
    assert len(files_in(tmp_path / "cache")) == 1
    assert environment.logged == list(range(6))


def agreeing_environments(write_files, tmp_path):
    """Two environments of other pictures, whose files agree in their names, sizes and times."""
    folders = tmp_path / "one/files", tmp_path / "two/files"
    write_files(SIZES)
    for folder in folders:
        shutil.copytree(tmp_path / "files", folder)
    for i in range(6):
        data = (folders[0] / f"{i}.jpg").read_bytes(), (folders[0] / f"{(i + 1) % 6}.jpg").read_bytes()
        for folder, picture in zip(folders, data, strict=True):
            (folder / f"{i}.jpg").write_bytes(picture.ljust(max(map(len, data)), b"\0"))
            os.utime(folder / f"{i}.jpg", (1, 1))
    made = [
        ImageFiles([(str(folder / f"{i}.jpg"), 0) for i in range(6)], PlainTransform(HPARAMS))
        for folder in folders
    ]
    states = [[Path(path).stat() for path in each.paths()] for each in made]
    one, two = ([(each.st_size, each.st_mtime_ns) for each in inside] for inside in states)
    assert one == two
    return made


def test_folders_that_agree_in_names_sizes_and_times_do_not_share_pixels(
    write_files, tmp_path, cache, assert_right
):
    one, two = agreeing_environments(write_files, tmp_path)
    for each in (one, two, one):
        assert_right(cache(each, tmp_path / "cache"), each)
    assert len(files_in(tmp_path / "cache")) == 2


def test_a_file_with_new_contents_but_its_old_size_and_time_is_decoded_again(
    write_files, tmp_path, cache, assert_right
):
    one, two = agreeing_environments(write_files, tmp_path)
    cache(one, tmp_path / "cache")
    for path, other in zip(one.paths(), two.paths(), strict=True):
        Path(path).write_bytes(Path(other).read_bytes())
        os.utime(path, (1, 1))
    assert_right(cache(one, tmp_path / "cache"), two)


def test_each_file_is_opened_once_to_be_hashed_and_decoded(write_files, tmp_path, cache, in_a_fork):
    environment = ImageFiles(write_files(SIZES), PlainTransform(HPARAMS))

    def count_opened():
        opened = []
        sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
        for number in range(3):
            transform = environment.transform if number < 2 else PlainTransform(HPARAMS | {"stored_size": 9})
            images = cache(environment, tmp_path / "cache", transform)
            assert len(images.facts.contents) == 6
            counts = [opened.count(path) for path in environment.paths()]
            # Another run opens none. Another transform needs the images again, but not for hashes.
            assert counts == [(1, 1, 2)[number]] * 6, (number, counts)

    process = in_a_fork(count_opened)
    assert os.waitpid(process, 0)[1] == 0


def test_moved_files_use_the_same_cache_file(environment, tmp_path, cache):
    cache(environment, tmp_path / "cache")
    (tmp_path / "files").rename(tmp_path / "moved")
    environment.samples = [(path.replace("/files/", "/moved/"), y) for path, y in environment.samples]
    cache(environment, tmp_path / "cache")
    assert environment.logged == list(range(6))


def test_an_error_names_an_unreadable_image_and_no_cache_file_is_left(environment, tmp_path, cache):
    Path(environment.samples[3][0]).write_bytes(b"no image")
    for transform in (PlainTransform(HPARAMS), AugmentingTransform(HPARAMS)):
        with pytest.raises(UnreadableImage, match=r"^image .*3\.jpg cannot be read"):
            cache(environment, tmp_path / "cache", transform)
    assert files_in(tmp_path / "cache") == []
    assert not list((tmp_path / "cache").glob(".*.images.*"))


def full_disk(monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 9000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    return (
        tmp_path / "cache",
        r"[\d.]+ k?B are needed and [\d.]+ k?B are free, of which a cache file may take half",
    )


def no_folder(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    return tmp_path / "file" / "cache", "Not a directory"


@pytest.mark.parametrize("break_cache", [full_disk, no_folder])
def test_images_are_read_from_their_files_if_the_cache_cannot_be_written(
    environment, tmp_path, monkeypatch, caplog, break_cache
):
    folder, reason = break_cache(monkeypatch, tmp_path)
    store = ImageStore(folder, torch.device("cpu"))
    with caplog.at_level(logging.WARNING):
        images = [store.open("a name", environment, environment.transform) for _ in range(2)]
    assert [each.in_memory for each in images] == [False, False]
    (message,) = caplog.messages
    assert re.fullmatch(
        rf"images are decoded at each access, because the cache cannot be used \(.*: {reason}\)", message
    )
    caplog.clear()


def test_the_cache_folder_is_from_the_option_or_the_environment(monkeypatch, tmp_path):
    assert cache_folder("none") is None
    assert cache_folder("here/there") == Path("here/there")
    monkeypatch.setenv("DOMAINBED_CACHE", str(tmp_path))
    assert cache_folder(None) == tmp_path
    monkeypatch.delenv("DOMAINBED_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder(None) == tmp_path / "xdg" / "domainbed"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder(None) == tmp_path / ".cache" / "domainbed"
