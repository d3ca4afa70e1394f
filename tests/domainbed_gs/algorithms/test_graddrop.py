"""Golden vectors and invariants of GradDrop, and its updates of a network."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from domainbed.errors import UsageError
from domainbed.gradients.componentwise import Block


@pytest.fixture(scope="module")
def graddrop(rule):
    """`graddrop(gradients, u, leak)`: its rule, for draws (P,), or for the same draw in each component."""
    method = rule("GradDrop")

    def combine(g, u, leak=0.0):
        method.hparams["leak"] = leak
        draws = u if isinstance(u, torch.Tensor) else torch.full_like(g[0], u)
        return method.combine(Block(g, draws))

    return combine


def largest_draw(dtype):
    return 1 - torch.finfo(dtype).eps / 2


def test_golden(graddrop, example):
    """The positive sums are (6, 1, 0, 0, 4, 3, 3, 3), the negative ones (0, -4, -4, 0, -3, -3, -2, -5)."""
    assert graddrop(example, 0.0).tolist() == [6, 1, -4, 0, 4, 3, 3, 3]
    assert graddrop(example, largest_draw(torch.float64)).tolist() == [6, -4, -4, 0, -3, -3, -2, -5]
    assert graddrop(example, 0.4).tolist() == [6, -4, -4, 0, 4, 3, 3, -5]


@given(st.data())
def test_small_draws_keep_the_positive_parts_and_large_ones_the_negative(gradients, graddrop, data):
    g = data.draw(gradients())
    positive, negative = g.clamp_min(0).sum(0), g.clamp_max(0).sum(0)
    torch.testing.assert_close(graddrop(g, 0.0), torch.where(positive > 0, positive, negative))
    lopsided = positive > 1e6 * -negative
    found = graddrop(g, largest_draw(torch.float64))
    torch.testing.assert_close(found[~lopsided], torch.where(negative < 0, negative, positive)[~lopsided])


@given(st.data(), st.floats(0, 1, exclude_max=True), st.randoms())
def test_given_the_draws_the_order_of_environments_does_not_matter(gradients, graddrop, data, u, random):
    g = data.draw(gradients(2))
    order = list(range(len(g)))
    random.shuffle(order)
    positive, negative = g.clamp_min(0).sum(0), g.clamp_max(0).sum(0)
    # Away from the edge, where the rounding of a sum decides.
    safe = (positive - u * (positive - negative)).abs() > 1e-9 * (positive - negative)
    torch.testing.assert_close(graddrop(g, u)[safe], graddrop(g[order], u)[safe])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(data=st.data(), sign=st.sampled_from([-1, 1]))
def test_where_all_agree_the_result_is_the_sum_whatever_the_draw(gradients, graddrop, dtype, data, sign):
    g = sign * data.draw(gradients()).abs().to(dtype)
    for u in (0.0, 0.5, largest_draw(dtype)):
        torch.testing.assert_close(graddrop(g, u), g.sum(0))


def test_the_expectation_is_the_sum(graddrop, example):
    """Exactly, over draws at the middles of 10^4 intervals."""
    n = 10_000
    draws = ((torch.arange(n, dtype=torch.float64) + 0.5) / n).repeat_interleave(8)
    mean = graddrop(example.repeat(1, n), draws).view(n, 8).mean(0)
    torch.testing.assert_close(mean, example.sum(0), rtol=0, atol=1e-3)


def test_the_leak_is_a_share_of_the_plain_sum(graddrop, example):
    picked, total = graddrop(example, 0.4), example.sum(0)
    torch.testing.assert_close(graddrop(example, 0.4, leak=0.25), 0.75 * picked + 0.25 * total)
    torch.testing.assert_close(graddrop(example, 0.4, leak=1.0), total)


def test_an_update_keeps_one_sign_of_each_component(float64, make, minibatches, gradients_of, given_to_adam):
    algorithm = make("GradDrop")
    batches = minibatches()
    g = gradients_of(algorithm, batches)
    returned = algorithm.update(batches)
    found = given_to_adam(algorithm)
    sides = torch.stack([g.clamp_min(0).sum(0), g.clamp_max(0).sum(0)])
    chosen = sides.gather(0, (found < 0).long()[None])[0]
    torch.testing.assert_close(found, chosen, rtol=1e-9, atol=1e-12)
    assert returned["removed"] == pytest.approx(1 - (found.norm() / g.sum(0).norm()).item(), abs=1e-6)


def test_an_update_with_a_leak_of_1_is_the_sum(float64, make, minibatches, gradients_of, given_to_adam):
    algorithm = make("GradDrop", leak=1.0)
    batches = minibatches()
    expected = gradients_of(algorithm, batches).sum(0)
    algorithm.update(batches)
    torch.testing.assert_close(given_to_adam(algorithm), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("leak", "bound"), [(-0.5, "least 0"), (1.5, "most 1")])
def test_a_leak_outside_0_to_1_is_refused(rule, leak, bound):
    with pytest.raises(UsageError, match=f"hyper-parameter leak must be at {bound}, not {leak}"):
        rule("GradDrop", leak=leak)
