import logging
import multiprocessing
import os
import resource
import signal
import time
from pathlib import Path

import pytest
import torch

from domainbed.datasets.image_decoding import UnreadableImage
from domainbed.training import loader_processes
from domainbed.training import prefetcher as module
from domainbed.training.prefetcher import Prefetcher

# Python 3.12 warns of forks in multi-threaded processes.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


class Numbers:
    """Items are (factor times the key, id of the process that read it)."""

    def __init__(self, factor, in_memory=False):
        self.factor = factor
        self.in_memory = in_memory

    def __getitem__(self, key):
        if key == 13:
            raise UnreadableImage("image 13 cannot be read")
        return self.factor * key, os.getpid()


class Deadly(Numbers):
    """Numbers; the process that reads the key 5 ends, unless it is the one that made this object."""

    def __init__(self, end):
        super().__init__(1)
        self.end = end
        self.maker = os.getpid()

    def __getitem__(self, key):
        if key == 5 and os.getpid() != self.maker:
            self.end()
        return super().__getitem__(key)


def values(items):
    return [value for value, _ in items]


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_interleaved_reads_keep_their_order(prefetcher, num_workers):
    read = prefetcher({"a": Numbers(1), "b": Numbers(10), "c": Numbers(100)}, num_workers).read
    labeled, unlabeled = read("a", range(12)), read("b", range(12))
    seen = []
    for step in range(12):
        assert next(labeled)[0] == step
        assert next(unlabeled)[0] == 10 * step
        if step % 4 == 3:
            seen.append(values(read("c", range(step))))
    assert seen == [[100 * key for key in range(step)] for step in (3, 7, 11)]
    assert list(labeled) == list(unlabeled) == []
    assert values(read("c", [5])) == [500]
    assert list(read("c", [])) == []


def test_reads_share_one_pool_and_sources_in_memory_are_read_in_this_process(prefetcher):
    made = prefetcher({"a": Numbers(1), "b": Numbers(10), "c": Numbers(100, in_memory=True)}, 2)
    readers = {name: {reader for _, reader in made.read(name, range(8))} for name in "abc"}
    assert len(multiprocessing.active_children()) == 2
    assert readers["a"] | readers["b"] <= {child.pid for child in multiprocessing.active_children()}
    assert readers["c"] == {os.getpid()}


def test_an_abandoned_read_does_not_affect_others(prefetcher):
    made = prefetcher({"a": Numbers(1), "b": Numbers(10)}, 1)
    outer = made.read("a", range(9))
    assert next(outer)[0] == 0
    left = made.read("b", range(50))
    assert next(left)[0] == 0
    left.close()
    assert values(outer) == list(range(1, 9))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_is_raised_by_the_read_that_caused_it(prefetcher, num_workers):
    made = prefetcher({"a": Numbers(1), "b": Numbers(2)}, num_workers)
    stream = made.read("a", range(12, 20))
    assert next(stream)[0] == 12
    assert values(made.read("b", range(9))) == list(range(0, 18, 2))
    with pytest.raises(UnreadableImage, match=r"^image 13 cannot be read$"):
        next(stream)
    workers = multiprocessing.active_children()
    made.close()
    assert [worker.exitcode for worker in workers] == [0] * num_workers


def test_an_error_of_a_plugins_source_has_the_traceback_of_the_loader_process(prefetcher):
    class Buggy(Numbers):
        def __getitem__(self, key):
            return {}[key]

    with pytest.raises(KeyError) as raised:
        list(prefetcher({"a": Buggy(1)}, 1).read("a", [7]))
    assert "In a loader process:" in raised.value.__notes__[0]
    assert "return {}[key]" in raised.value.__notes__[0]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_loader_process_that_dies_is_noticed_and_this_process_reads_on(prefetcher, caplog, number):
    made = prefetcher({"a": Deadly(lambda: os.kill(os.getpid(), number)), "b": Numbers(10)}, 2)
    other = made.read("b", range(9))
    assert next(other)[0] == 0
    read = list(made.read("a", range(12)))
    assert values(read) == list(range(12))
    assert [reader for _, reader in read][-7:] == [os.getpid()] * 7
    assert values(other) == list(range(10, 90, 10))
    (line,) = caplog.messages
    assert line.startswith(
        "loader processes failed (one of them has died); this process now reads the images"
    )
    assert "--ipc=host" in line
    assert "--num_workers 0" in line
    assert not multiprocessing.active_children()


def test_a_loader_process_short_of_memory_leaves_the_item_to_this_process(prefetcher, caplog):
    def run_out():
        raise MemoryError

    made = prefetcher({"a": Deadly(run_out)}, 1)
    assert values(made.read("a", range(9))) == list(range(9))
    assert "loader processes failed (MemoryError); " in caplog.text


def test_an_item_that_cannot_be_sent_is_read_by_this_process(prefetcher, caplog):
    class Functions(Numbers):
        def __getitem__(self, key):
            return lambda: key

    made = prefetcher({"a": Functions(1)}, 1)
    assert [item() for item in made.read("a", range(3))] == [0, 1, 2]
    assert "loader processes failed (" in caplog.text
    assert "lambda" in caplog.text


def test_loader_processes_that_cannot_be_started_are_done_without(tmp_path):
    def read_in_a_user_account_that_is_full():
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        if not os.geteuid():  # the limit does not apply to root
            os.setuid(54321)
        messages = []
        logging.getLogger(module.__name__).addFilter(lambda record: messages.append(record.getMessage()))
        read = list(Prefetcher({"a": Numbers(1)}, 2).read("a", range(4)))
        assert read == [(key, os.getpid()) for key in range(4)]
        (line,) = messages
        assert line.startswith("loader processes failed (they cannot be started: BlockingIOError")

    process = multiprocessing.get_context("fork").Process(target=read_in_a_user_account_that_is_full)
    process.start()
    process.join()
    assert process.exitcode == 0


def test_closing_kills_a_loader_process_that_hangs(prefetcher, monkeypatch):
    monkeypatch.setattr(loader_processes, "PATIENCE_SECONDS", 0.1)
    made = prefetcher({"a": Deadly(lambda: time.sleep(1000))}, 1)
    assert next(made.read("a", [1, 5]))[0] == 1
    made.close()
    assert not multiprocessing.active_children()


def test_loader_processes_end_with_the_process_that_reads(tmp_path, wait_until):
    def read():
        made = Prefetcher({"a": Numbers(1)}, 2)
        next(made.read("a", range(9)))
        children = [str(child.pid) for child in multiprocessing.active_children()]
        (tmp_path / "pids").write_text(" ".join(children))
        time.sleep(1000)

    process = multiprocessing.get_context("fork").Process(target=read)
    process.start()
    pids = wait_until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text()).split()
    assert len(pids) == 2
    process.kill()
    process.join()
    wait_until(lambda: not any(Path("/proc", pid, "cmdline").exists() for pid in pids))


def test_draws_of_a_source_depend_on_the_item_alone(prefetcher):
    class Draws(Numbers):
        def __getitem__(self, key):
            return float(torch.rand(())), key

    def drawn(num_workers, keys):
        return dict(zip(keys, values(prefetcher({"a": Draws(1)}, num_workers).read("a", keys)), strict=True))

    one, two = drawn(1, range(6)), drawn(2, range(5, -1, -1))
    assert one == two
    assert len({*one.values()}) == 6
