"""The cache of a network's outputs: contents, concurrency, damage and errors."""

import logging
import os
import re
import shutil
import signal
import time

import numpy as np
import pytest

from domainbed.images.outputs_cache import CachedOutputs

COUNT, SHAPE = 150, (3, 2, 2)


class Network:
    """Computes the outputs, and writes the index of each to `log`."""

    def __init__(self, log):
        self.log, self.pause = log, 0.0
        log.touch()

    def __call__(self, indices):
        time.sleep(self.pause)
        with self.log.open("a") as log:
            log.write("".join(f"{index}\n" for index in indices))
        return right(indices)

    @property
    def computed(self):
        return sorted(map(int, self.log.read_text().split()))


def right(indices):
    return (indices[:, None, None, None] + np.arange(12).reshape(SHAPE) / 7).astype(np.float32)


@pytest.fixture
def network(tmp_path):
    return Network(tmp_path / "log")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def cache(network, folder, key="a key"):
    return CachedOutputs(folder, "a name", key, COUNT, SHAPE, network)


def assert_right(outputs):
    for indices in (np.array([3]), np.array([149, 0, 0, 77]), np.arange(COUNT)):
        found = outputs.read(indices)
        assert found.dtype == np.float32
        assert np.array_equal(found, right(indices))


def test_outputs_are_computed_once_for_all_runs(network, folder):
    for _ in range(2):
        assert_right(cache(network, folder))
    assert network.computed == list(range(COUNT))
    (path,) = folder.glob("*.outputs")
    assert path.name.startswith("a_name-")


def test_another_key_has_another_file(network, folder):
    cache(network, folder)
    cache(network, folder, "another key")
    assert network.computed == sorted([*range(COUNT)] * 2)
    assert len(list(folder.glob("*.outputs"))) == 2


def test_one_of_several_processes_computes_and_the_others_wait(network, folder, in_a_fork):
    network.pause = 0.1
    processes = [in_a_fork(lambda: assert_right(cache(network, folder))) for _ in range(3)]
    assert all(os.waitpid(process, 0)[1] == 0 for process in processes)
    assert network.computed == list(range(COUNT))


def test_a_process_killed_while_it_computes_leaves_no_lock_and_no_partial_file(
    network, folder, wait_until, in_a_fork
):
    network.pause = 0.5
    process = in_a_fork(lambda: cache(network, folder))
    wait_until(lambda: len(network.computed) >= 64)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    assert not list(folder.glob("*.outputs"))
    network.pause = 0.0
    assert_right(cache(network, folder))
    assert [path.suffix for path in folder.iterdir() if ".outputs" in path.name] == [".outputs"]


def flip(position):
    def change(path):
        data = bytearray(path.read_bytes())
        data[position] ^= 4
        path.write_bytes(data)

    return change


DAMAGE = {
    "cut": (lambda path: os.truncate(path, path.stat().st_size - 1), r"it has \d+ bytes, not \d+"),
    "empty": (lambda path: os.truncate(path, 0), "it does not begin as expected"),
    "checksum flipped": (flip(300), "its first part has changed"),
    "output flipped": (flip(-1), "output 149 has changed"),
    "zeros": (lambda path: path.write_bytes(bytes(path.stat().st_size)), "it does not begin as expected"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_made_again_and_that_is_said(network, folder, caplog, damage):
    change, reason = DAMAGE[damage]
    cache(network, folder)
    (path,) = folder.glob("*.outputs")
    whole = path.read_bytes()
    change(path)
    with caplog.at_level(logging.WARNING):
        assert_right(cache(network, folder))
    (message,) = caplog.messages
    caplog.clear()
    assert re.fullmatch(rf"warning: cache file {path} is damaged \({reason}\); it is made again", message)
    assert path.read_bytes() == whole


def test_a_file_that_is_cut_while_it_is_in_use_is_made_again(network, folder, caplog):
    outputs = cache(network, folder)
    (path,) = folder.glob("*.outputs")
    os.truncate(path, 5000)
    with caplog.at_level(logging.WARNING):
        assert_right(outputs)
    reason = "it was cut while it was in use"
    assert caplog.messages == [f"warning: cache file {path} is damaged ({reason}); it is made again"]
    caplog.clear()
    assert network.computed == sorted([*range(COUNT)] * 2)


def test_outputs_are_computed_if_a_damaged_file_cannot_be_made_again(network, folder, caplog):
    outputs = cache(network, folder)
    (path,) = folder.glob("*.outputs")
    os.truncate(path, 0)
    shutil.rmtree(folder)
    folder.touch()
    with caplog.at_level(logging.WARNING):
        assert_right(outputs)
    assert "that failed (Not a directory); outputs are computed" in caplog.text
    caplog.clear()


def test_a_file_that_takes_more_than_half_of_the_free_disk_is_refused(network, folder, monkeypatch):
    free = 4 * COUNT * int(np.prod(SHAPE)) * 2 - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(free, 0, free))
    with pytest.raises(OSError, match=r"are needed and .* are free, of which a cache file may take half"):
        cache(network, folder)
    assert network.computed == []
    assert not list(folder.glob("*.outputs"))
