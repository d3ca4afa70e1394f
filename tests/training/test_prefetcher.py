import multiprocessing
import os

import pytest

from domainbed.datasets.image_decoding import UnreadableImage
from domainbed.training.prefetcher import Prefetcher

# Python 3.12 warns of forks in multi-threaded processes, and torch's loaders fork.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*:DeprecationWarning", "ignore:This DataLoader will create:UserWarning"
)


class Numbers:
    """Items are (factor times the key, id of the process that read it)."""

    def __init__(self, factor, in_memory=False):
        self.factor = factor
        self.in_memory = in_memory

    def __getitem__(self, key):
        if key == 13:
            raise UnreadableImage("image 13 cannot be read")
        return self.factor * key, os.getpid()


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_interleaved_reads_keep_their_order(num_workers):
    prefetcher = Prefetcher({"a": Numbers(1), "b": Numbers(10), "c": Numbers(100)}, num_workers)
    labeled, unlabeled = prefetcher.read("a", range(12)), prefetcher.read("b", range(12))
    seen = []
    for step in range(12):
        assert next(labeled)[0] == step
        assert next(unlabeled)[0] == 10 * step
        if step % 4 == 3:
            seen.append([value for value, _ in prefetcher.read("c", range(step))])
    assert seen == [[100 * key for key in range(step)] for step in (3, 7, 11)]
    assert list(labeled) == list(unlabeled) == []
    assert [value for value, _ in prefetcher.read("c", [5])] == [500]
    assert list(prefetcher.read("c", [])) == []


def test_reads_share_one_pool_and_sources_in_memory_are_read_in_this_process():
    prefetcher = Prefetcher({"a": Numbers(1), "b": Numbers(10), "c": Numbers(100, in_memory=True)}, 2)
    readers = {name: {reader for _, reader in prefetcher.read(name, range(8))} for name in "abc"}
    assert len(readers["a"] | readers["b"]) == 2
    assert os.getpid() not in readers["a"] | readers["b"]
    assert readers["c"] == {os.getpid()}


def test_an_abandoned_read_does_not_affect_others():
    prefetcher = Prefetcher({"a": Numbers(1), "b": Numbers(10)}, 1)
    outer = prefetcher.read("a", range(9))
    assert next(outer)[0] == 0
    left = prefetcher.read("b", range(50))
    assert next(left)[0] == 0
    left.close()
    assert [value for value, _ in outer] == list(range(1, 9))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_is_raised_by_the_read_that_caused_it(num_workers):
    prefetcher = Prefetcher({"a": Numbers(1), "b": Numbers(2)}, num_workers)
    stream = prefetcher.read("a", range(12, 20))
    assert next(stream)[0] == 12
    assert [value for value, _ in prefetcher.read("b", range(9))] == list(range(0, 18, 2))
    with pytest.raises(UnreadableImage, match=r"^image 13 cannot be read$"):
        next(stream)
    workers = multiprocessing.active_children()
    prefetcher.close()
    # torch kills a worker that has not ended after five seconds.
    assert [worker.exitcode for worker in workers] == [0] * num_workers
