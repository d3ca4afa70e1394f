"""The valley of the validation loss that SWAD averages over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbed.training.swad import LossValley

# With n_s = 3 and r = 0.3: 0.5 is the minimum of the three losses from step 20 on. Their mean is 0.55, so the
# tolerance is 0.715.
LOSSES = [1.0, 0.8, 0.5, 0.6, 0.55, 0.6, 0.9, 0.9, 0.7, 0.72, 0.8, 0.9, 0.75, 0.9, 0.9, 0.5]
DECISIONS = [
    *((0, 0), (1, 0), (1, 0), (0, 0), (0, 3), (0, 1), (0, 0), (0, 0), (0, 3)),
    *((0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0)),
]


def test_decisions_of_an_example():
    valley = LossValley(n_s=3, n_e=6, r=0.3)
    for i, (loss, decision) in enumerate(zip(LOSSES[:15], DECISIONS, strict=True)):
        assert not valley.ended
        assert valley.add(10 * i, loss) == decision, i
        assert valley.start == (20 if i >= 4 else None)
    assert (valley.start, valley.end, valley.ended) == (20, 80, True)


def by_definition(losses, n_s, n_e, r):
    """(start, end, whether it has ended) of the valley, from the definition in Cha et al. (2021).

    The end is the first checkpoint of which the next n_e losses all exceed the tolerance.
    """
    for start in range(len(losses) - n_s + 1):
        window = losses[start : start + n_s]
        if window[0] == min(window):
            tolerated = (1 + r) * sum(window) / n_s
            end = start
            while end < len(losses) and min(losses[end : end + n_e]) <= tolerated:
                end += 1
            return start, end, end + n_e <= len(losses)
    return None, None, False


sizes = st.integers(1, 5)


@given(st.lists(st.integers(1, 9).map(float), min_size=1, max_size=25), sizes, sizes, st.floats(0, 1))
def test_every_decision_follows_the_definition(losses, n_s, n_e, r):
    valley = LossValley(n_s, n_e, r)
    undecided, taken, dropped = [], [], []
    for i, loss in enumerate(losses):
        if not valley.ended:
            undecided.append(i)
            drop, take = valley.add(i, loss)
            dropped += [undecided.pop(0) for _ in range(drop)]
            taken += [undecided.pop(0) for _ in range(take)]
        start, end, over = by_definition(losses[: i + 1], n_s, n_e, r)
        assert (valley.start, valley.ended) == (start, over)
        if start is None:
            assert not taken
        else:
            assert dropped == list(range(start))
            assert taken == list(range(start, end))
            assert valley.end == end - 1


@pytest.mark.parametrize("cut", range(15))
def test_the_valley_resumes_from_its_state(cut):
    first, second = LossValley(3, 6, 0.3), LossValley(3, 6, 0.3)
    for i in range(cut):
        first.add(10 * i, LOSSES[i])
    second.load_state_dict(first.state_dict())
    for i in range(cut, 15):
        assert second.add(10 * i, LOSSES[i]) == first.add(10 * i, LOSSES[i])
    assert second.state_dict() == first.state_dict()
