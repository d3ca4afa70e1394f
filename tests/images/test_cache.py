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

from domainbed.datasets.image_files import ImageFiles, UnreadableImage
from domainbed.datasets.image_transforms import augmenting_transform, plain_transform
from domainbed.errors import RunError
from domainbed.images.cache import cache_folder, held
from domainbed.images.environment import Place

HPARAMS = {"input_size": 16}
SIZES = [(20, 20)] * 6


class Counted(ImageFiles):
    """Says in a file which images were decoded; the last takes `pause` seconds."""

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
    made = Counted(write_files(SIZES), plain_transform(HPARAMS))
    made.log = tmp_path / "log"
    made.log.touch()
    return made


def decoded(environment):
    return sorted(map(int, environment.log.read_text().split()))


def keep(environment, folder, transform=None):
    return held(folder, "a name", environment, environment.paths(), transform or environment.transform)


def files_in(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def in_a_fork(work):
    """Number of a process that does `work`."""
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
    first = keep(environment, tmp_path / "cache")
    assert decoded(environment) == list(range(6))
    second = keep(environment, tmp_path / "cache")
    assert decoded(environment) == list(range(6))
    assert all(torch.equal(first[i], second[i]) for i in range(6))
    assert len(files_in(tmp_path / "cache")) == 1
    assert files_in(tmp_path / "cache")[0].startswith("a_name-")


def test_other_files_or_another_way_of_keeping_them_are_another_cache(environment, tmp_path):
    folder = tmp_path / "cache"
    for count, change in enumerate(
        (
            lambda: None,
            lambda: os.utime(environment.samples[0][0], (1, 1)),
            lambda: Path(environment.samples[1][0]).write_bytes(Path(environment.samples[2][0]).read_bytes()),
            lambda: environment.samples.reverse(),
            lambda: environment.samples.pop() and environment.targets.pop(),
            lambda: setattr(environment, "transform", plain_transform(HPARAMS | {"stored_size": 9})),
            lambda: setattr(environment, "transform", plain_transform(HPARAMS | {"reencode": True})),
            lambda: setattr(environment, "transform", plain_transform({"input_size": 8})),
            lambda: setattr(environment, "transform", augmenting_transform(HPARAMS)),
            lambda: setattr(environment, "transform", augmenting_transform(HPARAMS, resize=True)),
        ),
        start=1,
    ):
        change()
        keep(environment, folder)
        assert len(files_in(folder)) == count


def test_where_the_files_lie_plays_no_part(environment, tmp_path):
    keep(environment, tmp_path / "cache")
    (tmp_path / "files").rename(tmp_path / "moved")
    environment.samples = [(path.replace("/files/", "/moved/"), y) for path, y in environment.samples]
    keep(environment, tmp_path / "cache")
    assert decoded(environment) == list(range(6))


def test_of_several_builders_one_builds_and_the_others_wait(environment, tmp_path):
    environment.pause = 0.3
    builders = [in_a_fork(lambda: keep(environment, tmp_path / "cache")) for _ in range(3)]
    assert all(os.waitpid(builder, 0)[1] == 0 for builder in builders)
    assert decoded(environment) == list(range(6))


def test_a_builder_that_is_killed_blocks_nobody_and_leaves_nothing(environment, tmp_path, wait_until):
    folder = tmp_path / "cache"
    environment.pause = 60.0
    builder = in_a_fork(lambda: keep(environment, folder))
    wait_until(lambda: len(decoded(environment)) == 6)
    os.kill(builder, signal.SIGKILL)
    os.waitpid(builder, 0)
    assert files_in(folder) == []
    assert len(list(folder.glob(".*.images.*"))) == 1
    environment.pause = 0.0
    keep(environment, folder)
    assert len(files_in(folder)) == 1
    assert not list(folder.glob(".*.images.*"))


def test_a_damaged_cache_is_named(environment, tmp_path):
    keep(environment, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*.images")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RunError, match=r"a_name-.*images is damaged .*; delete it"):
        keep(environment, tmp_path / "cache")


def test_an_unreadable_image_is_named_and_no_cache_is_left(environment, tmp_path):
    Path(environment.samples[3][0]).write_bytes(b"no image")
    for transform in (plain_transform(HPARAMS), augmenting_transform(HPARAMS)):
        with pytest.raises(UnreadableImage, match=r"^image .*3\.jpg cannot be read"):
            keep(environment, tmp_path / "cache", transform)
    assert files_in(tmp_path / "cache") == []
    assert not list((tmp_path / "cache").glob(".*.images.*"))


def full_disk(monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 9000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    return tmp_path / "cache", r"0\.0 GB are needed, and 0\.0 GB are free, of which a file may take half"


def no_folder(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    return tmp_path / "file" / "cache", "Not a directory"


@pytest.mark.parametrize("trouble", [full_disk, no_folder])
def test_without_room_images_are_read_from_their_files(environment, tmp_path, monkeypatch, caplog, trouble):
    folder, reason = trouble(monkeypatch, tmp_path)
    place = Place(folder, torch.device("cpu"))
    with caplog.at_level(logging.WARNING):
        images = [place.images("a name", environment, environment.transform) for _ in range(2)]
    assert [each.in_memory for each in images] == [False, False]
    (message,) = caplog.messages
    assert re.fullmatch(rf"images are decoded anew each time: no cache \(.*: {reason}\)", message)
    caplog.clear()


def test_where_the_cache_is(monkeypatch, tmp_path):
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
