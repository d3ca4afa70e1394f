import multiprocessing
import os

import pytest

from domainbed.datasets.image_files import UnreadableImage
from domainbed.training.prefetcher import Prefetcher

# Later Pythons warn of every fork of a process with threads; torch's loaders fork.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*:DeprecationWarning", "ignore:This DataLoader will create:UserWarning"
)


class Numbers:
    """Items (factor times the key, the process that made it)."""

    def __init__(self, factor, in_memory=False):
        self.factor = factor
        self.in_memory = in_memory

    def __getitem__(self, key):
        if key == 13:
            raise UnreadableImage("image 13 cannot be read")
        return self.factor * key, os.getpid()


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_streams_keep_their_order_whatever_is_read_between(num_workers):
    reader = Prefetcher({"a": Numbers(1), "b": Numbers(10), "c": Numbers(100)}, num_workers)
    labeled, unlabeled = reader.read("a", range(12)), reader.read("b", range(12))
    seen = []
    for step in range(12):
        assert next(labeled)[0] == step
        assert next(unlabeled)[0] == 10 * step
        if step % 4 == 3:
            seen.append([value for value, _ in reader.read("c", range(step))])
    assert seen == [[100 * key for key in range(step)] for step in (3, 7, 11)]
    assert list(labeled) == list(unlabeled) == []
    assert [value for value, _ in reader.read("c", [5])] == [500]
    assert list(reader.read("c", [])) == []


def test_all_streams_share_one_pool_and_what_is_in_memory_is_read_here():
    reader = Prefetcher({"a": Numbers(1), "b": Numbers(10), "c": Numbers(100, in_memory=True)}, 2)
    makers = {name: {maker for _, maker in reader.read(name, range(8))} for name in "abc"}
    assert len(makers["a"] | makers["b"]) == 2
    assert os.getpid() not in makers["a"] | makers["b"]
    assert makers["c"] == {os.getpid()}


def test_a_stream_that_is_left_does_not_disturb_the_others():
    reader = Prefetcher({"a": Numbers(1), "b": Numbers(10)}, 1)
    outer = reader.read("a", range(9))
    assert next(outer)[0] == 0
    left = reader.read("b", range(50))
    assert next(left)[0] == 0
    left.close()
    assert [value for value, _ in outer] == list(range(1, 9))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_reaches_the_one_who_reads(num_workers):
    reader = Prefetcher({"a": Numbers(1), "b": Numbers(2)}, num_workers)
    stream = reader.read("a", range(12, 20))
    assert next(stream)[0] == 12
    assert [value for value, _ in reader.read("b", range(9))] == list(range(0, 18, 2))
    with pytest.raises(UnreadableImage, match=r"^image 13 cannot be read$"):
        next(stream)
    workers = multiprocessing.active_children()
    reader.close()
    # What does not end by itself is killed after five seconds.
    assert [worker.exitcode for worker in workers] == [0] * num_workers
