from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbed.errors import UsageError
from domainbed.predictions import mcnemar
from domainbed.predictions.agreement import shared_samples


def test_mcnemar_is_the_exact_binomial_test_of_the_samples_with_one_correct(part_of):
    first = part_of(np.eye(2)[[0] * 9 + [1]], [0] * 10)
    second = part_of(np.eye(2)[[1] * 7 + [0] * 3], [0] * 10)
    test = mcnemar([first], [second])
    assert (test.samples, test.only_first, test.only_second) == (10, 7, 1)
    assert test.p == pytest.approx(2 * sum(comb(8, k) for k in (7, 8)) / 2**8)
    assert test.difference == pytest.approx(0.6)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30))
def test_mcnemar_is_symmetric_and_finds_nothing_where_runs_agree(part_of, pairs):
    first, second = (part_of(np.eye(2)[list(each)], [0] * len(pairs)) for each in zip(*pairs, strict=True))
    test, other = mcnemar([first], [second]), mcnemar([second], [first])
    assert test.p == pytest.approx(other.p)
    assert 0 < test.p <= 1
    assert test.difference == -other.difference
    assert mcnemar([first], [first]).p == 1.0


def test_runs_with_other_splits_are_compared_on_the_images_that_both_predicted(part_of):
    def parts(order, cut):
        logits, labels = np.eye(2)[[i % 2 for i in order]], [int(i > 2) for i in order]
        images = [f"photo/{i}.png" for i in order]
        return [
            part_of(logits[:cut], labels[:cut], "env1_in", images=images[:cut]),
            part_of(logits[cut:], labels[cut:], "env1_out", images=images[cut:]),
        ]

    one, other = parts([0, 1, 2, 3, 4], 3), parts([4, 2, 0, 3, 1], 2)
    assert mcnemar(one, other) == mcnemar(other, one)
    assert mcnemar(one, other).samples == 5
    assert mcnemar(one[:1], other[1:]).samples == 2
    matched = shared_samples([one, other])
    assert [part.images[rows].tolist() for part, rows in matched] == [
        [f"photo/{i}.png" for i in range(5)]
    ] * 2


def test_runs_without_shared_images_or_with_other_labels_are_refused(part_of):
    one = part_of(np.eye(2), [0, 1], images=["a.png", "b.png"])
    with pytest.raises(UsageError, match="share no sample of environment 1"):
        mcnemar([one], [part_of(np.eye(2), [0, 1], images=["c.png", "d.png"])])
    with pytest.raises(UsageError, match="disagree about labels of environment 1"):
        mcnemar([one], [part_of(np.eye(2), [1, 1], images=["a.png", "b.png"])])
    with pytest.raises(UsageError, match="saved no predictions for this environment"):
        mcnemar([one], [])
