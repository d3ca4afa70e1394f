"""The cache of decoded images: contents, keys, concurrency and errors."""

import logging
import os
import pickle
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import namedtuple
from pathlib import Path

import numpy as np
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
    """Names of the cache files."""
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".images")


def pixels_of(environment):
    """The cached pixels that the files should give."""
    transform = environment.transform
    return [transform.cached_pixels(ImageFiles.image(environment, i)) for i in range(len(environment))]


def assert_right(images, environment):
    for i, expected in enumerate(pixels_of(environment)):
        assert np.array_equal(images[i].numpy(), expected), i


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


def test_files_with_other_times_but_the_same_contents_use_the_same_cache_file(environment, tmp_path):
    cache(environment, tmp_path / "cache")
    for path in environment.paths():
        os.utime(path, (1, 1))
    assert_right(cache(environment, tmp_path / "cache"), environment)
    assert len(files_in(tmp_path / "cache")) == 1
    assert decoded(environment) == list(range(6))


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


def test_folders_that_agree_in_names_sizes_and_times_do_not_share_pixels(write_files, tmp_path):
    one, two = agreeing_environments(write_files, tmp_path)
    for each in (one, two, one):
        assert_right(cache(each, tmp_path / "cache"), each)
    assert len(files_in(tmp_path / "cache")) == 2


def test_a_file_with_new_contents_but_its_old_size_and_time_is_decoded_again(write_files, tmp_path):
    one, two = agreeing_environments(write_files, tmp_path)
    cache(one, tmp_path / "cache")
    for path, other in zip(one.paths(), two.paths(), strict=True):
        Path(path).write_bytes(Path(other).read_bytes())
        os.utime(path, (1, 1))
    assert_right(cache(one, tmp_path / "cache"), two)


def test_each_file_is_opened_once_to_be_hashed_and_decoded(write_files, tmp_path):
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

    process = in_a_fork(lambda: exit_with(count_opened))
    assert os.waitpid(process, 0)[1] == 0


def exit_with(work):
    """Call `work` and exit with status 1 if it raises."""
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)


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
def test_a_damaged_cache_file_is_made_again_and_that_is_said(environment, tmp_path, caplog, damage):
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
    assert decoded(environment) == sorted([*range(6)] * 2)


def test_a_deleted_cache_file_is_made_again_and_that_is_said(environment, tmp_path, caplog):
    cache(environment, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*.images")
    path.unlink()
    with caplog.at_level(logging.WARNING):
        assert_right(cache(environment, tmp_path / "cache"), environment)
    assert caplog.messages == [f"warning: image cache {path} is missing; it is made again"]
    caplog.clear()


def test_hashes_that_are_lost_or_damaged_are_computed_again(environment, tmp_path):
    cache(environment, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*.contents")
    for change in (Path.unlink, flip(-1), flip(3), lambda path: os.truncate(path, 50)):
        change(path)
        assert_right(cache(environment, tmp_path / "cache"), environment)
    assert decoded(environment) == list(range(6))


@pytest.mark.parametrize("left", [0, 5000])
def test_a_process_whose_cache_file_is_cut_while_it_reads_lives_and_gets_the_right_pixels(
    environment, tmp_path, left, caplog
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

    process = in_a_fork(lambda: exit_with(read_before_and_after))
    os.read(ready[0], 1)
    os.truncate(path, left)
    os.write(go[1], b"g")
    assert os.waitpid(process, 0)[1] == 0  # no SIGBUS
    for end in (*ready, *go):
        os.close(end)
    assert_right(cache(environment, tmp_path / "cache"), environment)


def test_a_deleted_cache_folder_does_not_disturb_the_images_that_are_open(environment, tmp_path, caplog):
    images = cache(environment, tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    assert_right(images, environment)
    assert caplog.messages == []


def test_images_are_decoded_at_each_access_if_a_damaged_cache_file_cannot_be_made_again(
    environment, tmp_path, caplog
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


def test_a_damaged_cache_file_of_changed_images_stops_the_run(environment, tmp_path, caplog):
    images = cache(environment, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*.images")
    os.truncate(path, 0)
    shutil.copy(environment.samples[1][0], environment.samples[0][0])
    with pytest.raises(RunError, match="image files of a name were changed during the run; start it again"):
        images[0]
    caplog.clear()


def test_several_processes_make_a_damaged_cache_file_again_once(environment, tmp_path):
    cache(environment, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*.images")
    images = cache(environment, tmp_path / "cache")
    os.truncate(path, 5000)
    processes = [in_a_fork(lambda: exit_with(lambda: assert_right(images, environment))) for _ in range(3)]
    assert [os.waitpid(process, 0)[1] for process in processes] == [0, 0, 0]
    assert decoded(environment) == sorted([*range(6)] * 2)


def test_images_can_be_sent_to_another_process(environment, tmp_path):
    images = pickle.loads(pickle.dumps(cache(environment, tmp_path / "cache")))
    assert_right(images, environment)


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


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming other users takes root's rights")
def test_several_users_share_a_cache(environment, forked, tmp_path):
    """One user's decoded images serve another, and a folder that only one may write is no error."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o777)
    files = place / "files"
    shutil.copytree(Path(environment.paths()[0]).parent, files)
    cache(environment, tmp_path / "cache")  # imports what other users may not read
    samples = [(str(path), 0) for path in sorted(files.iterdir())]

    def as_user(number, count, log):
        def read():
            os.setuid(number)
            os.umask(0o022)
            made = Counted(samples[:count], PlainTransform(HPARAMS))
            made.log = place / log
            made.log.touch()
            images = ImageStore(place / "cache", torch.device("cpu")).open("a name", made, made.transform)
            made.log.write_text(f"{made.log.read_text()}in memory: {images.in_memory}")

        done = forked(read)
        assert done.returncode == 0, done.stderr
        return (place / log).read_text().split("\n")

    try:
        assert as_user(1001, 6, "first")[-1] == "in memory: True"
        assert as_user(1002, 6, "second") == ["in memory: True"]  # decoded nothing
        assert as_user(1002, 5, "other") == ["in memory: False"]  # may not write there
        assert as_user(1001, 5, "again")[-1] == "in memory: True"
    finally:
        shutil.rmtree(place)


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
