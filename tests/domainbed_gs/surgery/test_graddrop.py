"""Golden vectors E.1 and invariants E.2 of the gradient surgery specification: GradDrop."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from domainbed_gs import surgery


def sums_of(g):
    sums = surgery.SignSums()
    assert all(torch.equal(a, b) for a, b in zip(sums.passing(iter(g)), g, strict=True))
    return sums.positive, sums.negative


def test_golden(example):
    positive, negative = sums_of(example)
    assert positive.tolist() == [6, 1, 0, 0, 4, 3, 3, 3]
    assert negative.tolist() == [0, -4, -4, 0, -3, -3, -2, -5]
    picked = surgery.graddrop(positive, negative, torch.full_like(positive, 0.4))
    assert picked.tolist() == [6, -4, -4, 0, 4, 3, 3, -5]


@given(st.data())
def test_streaming_equals_the_stacked_definition(gradients, data):
    g = data.draw(gradients())
    positive, negative = sums_of(g)
    torch.testing.assert_close(positive, g.clamp_min(0).sum(0))
    torch.testing.assert_close(negative, g.clamp_max(0).sum(0))


@given(st.data(), st.floats(0, 1, exclude_max=True), st.randoms())
def test_given_the_draws_the_order_of_environments_does_not_matter(gradients, data, u, random):
    g = data.draw(gradients(2))
    permuted = list(g)
    random.shuffle(permuted)
    outcomes = []
    for each in (list(g), permuted):
        positive, negative = sums_of(each)
        # Away from the edge, where the order of a sum decides.
        safe = (positive - u * (positive - negative)).abs() > 1e-9 * (positive - negative)
        outcomes.append(surgery.graddrop(positive, negative, torch.full_like(positive, u))[safe])
    torch.testing.assert_close(*outcomes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(data=st.data(), sign=st.sampled_from([-1, 1]))
def test_where_all_agree_the_result_is_the_sum_whatever_the_draw(gradients, dtype, data, sign):
    g = sign * data.draw(gradients()).abs().to(dtype)
    positive, negative = sums_of(g)
    for u in (0.0, 0.5, 1 - torch.finfo(dtype).eps / 2):
        assert torch.equal(
            surgery.graddrop(positive, negative, torch.full_like(positive, u)), positive + negative
        )


def test_the_expectation_is_the_sum(example):
    """Exactly, over draws at the middles of 10^4 intervals."""
    positive, negative = sums_of(example)
    uniform = ((torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000)[:, None].expand(-1, 8)
    mean = surgery.graddrop(positive, negative, uniform).mean(0)
    torch.testing.assert_close(mean, example.sum(0), rtol=0, atol=1e-3)


def test_what_leaks_is_the_plain_sum(example):
    positive, negative = sums_of(example)
    uniform = torch.full_like(positive, 0.4)
    picked = surgery.graddrop(positive, negative, uniform)
    torch.testing.assert_close(
        surgery.graddrop(positive, negative, uniform, leak=0.25), 0.75 * picked + 0.25 * example.sum(0)
    )
    torch.testing.assert_close(surgery.graddrop(positive, negative, uniform, leak=1.0), example.sum(0))
