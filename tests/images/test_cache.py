"""The cache of decoded images: contents, keys, concurrency and errors."""

import logging
import os
import re
import shutil
import signal
import time
import warnings
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from domainbed.datasets.image_decoding import UnreadableImage
from domainbed.datasets.image_files import ImageFiles
from domainbed.datasets.image_transforms import AugmentingTransform, PlainTransform
from domainbed.errors import RunError
from domainbed.images.cache import cache_folder, cached_images
from domainbed.images.prepared import ImageStore

HPARAMS = {"input_size": 16}
SIZES = [(20, 20)] * 6


class Counted(ImageFiles):
    """Writes the index of each decoded image to `log`, and waits `pause` seconds before the last one."""

    log: Path
    pause = 0.0

    def image(self, index):
        with self.log.open("a") as log:
            log.write(f"{index}\n")
        if index == len(self) - 1:
            time.sleep(self.pause)
        return super().image(index)


@pytest.fixture
def environment(write_files, tmp_path):
    made = Counted(write_files(SIZES), PlainTransform(HPARAMS))
    made.log = tmp_path / "log"
    made.log.touch()
    return made


def decoded(environment):
    return sorted(map(int, environment.log.read_text().split()))


def cache(environment, folder, transform=None):
    return cached_images(
        folder, "a name", environment, environment.paths(), transform or environment.transform
    )


def files_in(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def in_a_fork(work):
    """Process id of a fork that calls `work`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: idle threads of libraries
        number = os.fork()
    if number == 0:
        try:
            work()
        finally:
            os._exit(0)
    return number


def test_files_are_decoded_once_for_all_runs(environment, tmp_path):
    first = cache(environment, tmp_path / "cache")
    assert decoded(environment) == list(range(6))
    second = cache(environment, tmp_path / "cache")
    assert decoded(environment) == list(range(6))
    assert all(torch.equal(first[i], second[i]) for i in range(6))
    assert len(files_in(tmp_path / "cache")) == 1
    assert files_in(tmp_path / "cache")[0].startswith("a_name-")


def test_other_files_or_transforms_use_another_cache_file(environment, tmp_path):
    folder = tmp_path / "cache"
    for count, change in enumerate(
        (
            lambda: None,
            lambda: os.utime(environment.samples[0][0], (1, 1)),
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


def test_moved_files_use_the_same_cache_file(environment, tmp_path):
    cache(environment, tmp_path / "cache")
    (tmp_path / "files").rename(tmp_path / "moved")
    environment.samples = [(path.replace("/files/", "/moved/"), y) for path, y in environment.samples]
    cache(environment, tmp_path / "cache")
    assert decoded(environment) == list(range(6))


def test_one_of_several_processes_decodes_and_the_others_wait(environment, tmp_path):
    environment.pause = 0.3
    processes = [in_a_fork(lambda: cache(environment, tmp_path / "cache")) for _ in range(3)]
    assert all(os.waitpid(process, 0)[1] == 0 for process in processes)
    assert decoded(environment) == list(range(6))


def test_a_process_killed_while_it_decodes_leaves_no_lock_and_no_partial_cache(
    environment, tmp_path, wait_until
):
    folder = tmp_path / "cache"
    environment.pause = 60.0
    process = in_a_fork(lambda: cache(environment, folder))
    wait_until(lambda: len(decoded(environment)) == 6)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    assert files_in(folder) == []
    assert len(list(folder.glob(".*.images.*"))) == 1
    environment.pause = 0.0
    cache(environment, folder)
    assert len(files_in(folder)) == 1
    assert not list(folder.glob(".*.images.*"))


def test_an_error_names_a_damaged_cache_file(environment, tmp_path):
    cache(environment, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*.images")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RunError, match=r"image cache .*a_name-.*images is damaged .*; delete it"):
        cache(environment, tmp_path / "cache")


def test_an_error_names_an_unreadable_image_and_no_cache_file_is_left(environment, tmp_path):
    Path(environment.samples[3][0]).write_bytes(b"no image")
    for transform in (PlainTransform(HPARAMS), AugmentingTransform(HPARAMS)):
        with pytest.raises(UnreadableImage, match=r"^image .*3\.jpg cannot be read"):
            cache(environment, tmp_path / "cache", transform)
    assert files_in(tmp_path / "cache") == []
    assert not list((tmp_path / "cache").glob(".*.images.*"))


def full_disk(monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 9000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    return tmp_path / "cache", r"0\.0 GB are needed and 0\.0 GB are free, of which a cache file may take half"


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
