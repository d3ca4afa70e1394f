"""The cache of decoded images between processes and users."""

import os
import pickle
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
import torch

from domainbed.images.prepared import ImageStore


def files_in(folder):
    """Names of the cache files."""
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".images")


def test_one_of_several_processes_decodes_and_the_others_wait(environment, tmp_path, cache, in_a_fork):
    environment.pause = 0.3
    processes = [in_a_fork(lambda: cache(environment, tmp_path / "cache")) for _ in range(3)]
    assert all(os.waitpid(process, 0)[1] == 0 for process in processes)
    assert environment.logged == list(range(6))


def test_a_process_killed_while_it_decodes_leaves_no_lock_and_no_partial_cache(
    environment, tmp_path, wait_until, cache, in_a_fork
):
    folder = tmp_path / "cache"
    environment.pause = 60.0
    process = in_a_fork(lambda: cache(environment, folder))
    wait_until(lambda: len(environment.logged) == 6)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    assert files_in(folder) == []
    assert len(list(folder.glob(".*.images.*"))) == 1
    environment.pause = 0.0
    cache(environment, folder)
    assert len(files_in(folder)) == 1
    assert not list(folder.glob(".*.images.*"))


def test_images_can_be_sent_to_another_process(environment, tmp_path, cache, assert_right):
    images = pickle.loads(pickle.dumps(cache(environment, tmp_path / "cache")))
    assert_right(images, environment)


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming other users takes root's rights")
def test_several_users_share_a_cache(environment, forked, tmp_path, cache, count_decoded):
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
            made = count_decoded(samples[:count], place / log)
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
