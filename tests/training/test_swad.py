"""The valley of the validation loss that SWAD averages over, and how often its checkpoints count."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbed.training.loss_valley import LossValley, PublicLossValley

# With n_s = 3 and r = 0.3: 0.5 is the minimum of the three losses from step 20 on. Their mean is 0.55, so the
# tolerance is 0.715.
LOSSES = [1.0, 0.8, 0.5, 0.6, 0.55, 0.6, 0.9, 0.9, 0.7, 0.72, 0.8, 0.9, 0.75, 0.9, 0.9, 0.5]


def counted(valley, losses):
    """For each prefix of `losses`: how often each checkpoint counts if the run ends there."""
    undecided, counts, found = [], Counter(), []
    for i, loss in enumerate(losses):
        if not valley.ended:
            undecided.append(i)
            decision = valley.add(i, loss)
            counts.update(undecided[position] for position in decision.include)
            del undecided[: decision.forget]
            provisional = Counter(undecided[position] for position in decision.provisional)
        found.append(counts + provisional if not valley.ended else counts.copy())
    return found


def test_each_checkpoint_of_the_valley_counts_once():
    valley = LossValley(n_s=3, n_e=6, r=0.3)
    found = counted(valley, LOSSES)
    assert [set(counts) for counts in found[:9]] == [
        *(set(), set(), set(), set(), {2, 3, 4}, {2, 3, 4, 5}, {2, 3, 4, 5}, {2, 3, 4, 5}),
        {2, 3, 4, 5, 6, 7, 8},
    ]
    assert found[-1] == Counter(range(2, 9))
    assert (valley.start, valley.end, valley.ended) == (2, 8, True)


def test_public_counting_repeats_the_first_checkpoint_until_its_queue_is_full():
    losses = [0.5, 0.6, 0.55, *[0.6] * 6]
    assert counted(PublicLossValley(3, 6, 0.3), losses)[-1] == Counter(
        {0: 3, **dict.fromkeys(range(1, 9), 1)}
    )
    assert counted(PublicLossValley(3, 6, 0.3), [0.9, *losses])[-1] == Counter(range(1, 10))


def test_public_counting_of_a_run_that_ends_early_includes_checkpoints_before_the_start():
    # The start is 3 of 0.5, known at 5.
    valley = PublicLossValley(3, 6, 0.3)
    found = counted(valley, [1.0, 0.9, 0.8, 0.5, 0.6, 0.6, 0.6, 0.6])
    assert [set(counts) for counts in found[5:]] == [{1, 2, 3, 4, 5}, {2, 3, 4, 5, 6}, {3, 4, 5, 6, 7}]
    assert (valley.start, valley.end) == (3, 7)


def test_public_counting_with_n_e_equal_to_n_s_leaves_out_the_start():
    found = counted(PublicLossValley(3, 3, 0.3), [0.9, 0.5, 0.6, 0.55, 0.6, 0.6])
    assert found[-1] == Counter([2, 3, 4, 5])
    # Only if nothing else counts it does.
    assert counted(PublicLossValley(3, 3, 0.0), [0.5, 0.9, 0.9, 0.9])[-1] == Counter([0])


def the_start(losses, n_s, r):
    """(start, tolerance), from the definition in Cha et al. (2021); None if there is no valley."""
    for start in range(len(losses) - n_s + 1):
        window = losses[start : start + n_s]
        if window[0] == min(window):
            return start, (1 + r) * sum(window) / n_s
    return None


def by_definition(losses, n_s, n_e, r):
    """(start, end, whether it has ended) of the valley.

    The end is the first checkpoint of which the next n_e losses all exceed the tolerance.
    """
    found = the_start(losses, n_s, r)
    if found is None:
        return None, None, False
    start, tolerated = found
    end = start
    while end < len(losses) and min(losses[end : end + n_e]) <= tolerated:
        end += 1
    return start, end, end + n_e <= len(losses)


def public_counts(losses, n_s, n_e, r):
    """How often each checkpoint of a run with these losses counts in the authors' code."""
    found = the_start(losses, n_s, r)
    if found is None:
        return Counter()
    start, tolerated = found
    counts = Counter(range(start + 1, start + 1 + max(0, n_s - n_e)))
    for newest in range(start + n_s, len(losses)):
        oldest = max(0, newest - n_e + 1)
        if oldest >= start and min(losses[oldest : newest + 1]) > tolerated:
            return counts or Counter([start])
        counts.update([oldest] * (oldest >= start))
    rest = range(max(0, len(losses) - n_e) + 1, len(losses))
    last = max((i for i in rest if losses[i] <= tolerated), default=-1)
    counts.update(i for i in rest if i <= last)
    return counts or Counter([start])


sizes = st.integers(1, 6)
curves = st.lists(st.integers(1, 9).map(float), min_size=1, max_size=25)


@given(curves, sizes, sizes, st.floats(0, 1))
def test_equal_counts_follow_the_definition_after_every_checkpoint(losses, n_s, n_e, r):
    valley = LossValley(n_s, n_e, r)
    for i, counts in enumerate(counted(valley, losses)):
        start, end, _ = by_definition(losses[: i + 1], n_s, n_e, r)
        assert counts == (Counter() if start is None else Counter(range(start, end)))
    start, end, ended = by_definition(losses, n_s, n_e, r)
    assert (valley.start, valley.end, valley.ended) == (start, None if end is None else end - 1, ended)


@given(curves, sizes, sizes, st.floats(0, 1))
def test_public_counts_follow_the_definition_after_every_checkpoint(losses, n_s, n_e, r):
    valley = PublicLossValley(n_s, n_e, r)
    for i, counts in enumerate(counted(valley, losses)):
        assert counts == public_counts(losses[: i + 1], n_s, n_e, r)
        assert all(number == 1 or position == 0 for position, number in counts.items())
    assert valley.start == by_definition(losses, n_s, n_e, r)[0]
    if counts:
        assert valley.end == max(counts)


@given(curves, st.integers(1, 3), st.integers(0, 4), st.floats(0, 1))
def test_both_countings_agree_on_a_valley_that_begins_late_and_ends(losses, n_s, more, r):
    n_e = n_s + 1 + more
    equal, public = LossValley(n_s, n_e, r), PublicLossValley(n_s, n_e, r)
    once, counts = counted(equal, losses)[-1], counted(public, losses)[-1]
    assert (equal.start, equal.ended) == (public.start, public.ended)
    if equal.ended and equal.start > 0:
        assert counts == once
    elif equal.ended:
        assert counts == once + Counter({0: n_e - n_s - 1})


@pytest.mark.parametrize("kind", [LossValley, PublicLossValley])
@pytest.mark.parametrize("cut", range(15))
def test_the_valley_resumes_from_its_state(kind, cut):
    first, second = kind(3, 6, 0.3), kind(3, 6, 0.3)
    for i in range(cut):
        first.add(10 * i, LOSSES[i])
    second.load_state_dict(first.state_dict())
    for i in range(cut, 15):
        assert second.add(10 * i, LOSSES[i]) == first.add(10 * i, LOSSES[i])
    assert second.state_dict() == first.state_dict()
