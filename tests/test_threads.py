"""A function mapped over items in threads."""

import threading

import pytest

from domainbed.threads import in_threads


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 100])
def test_results_are_in_the_order_of_the_items(count):
    assert list(in_threads(str, range(count))) == [str(item) for item in range(count)]


def test_items_are_shared_by_threads_and_the_first_error_is_raised():
    meeting = threading.Barrier(2, timeout=20)
    assert set(in_threads(lambda _: meeting.wait(), range(2), threads=2, chunk=1)) == {0, 1}
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda item: 1 / (3 - item), range(100)))


def test_a_caller_that_has_read_enough_does_not_wait_for_the_rest():
    seen = []
    assert any(in_threads(lambda item: seen.append(item) or True, range(10_000), threads=1))
    assert len(seen) < 10_000
