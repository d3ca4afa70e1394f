"""Golden vectors E.1 and invariants E.2 of the gradient surgery specification: GradVac."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed_gs import surgery


def gradvac(g, orders, target=0.0, beta=0.1):
    """The update, and the new targets."""
    gram = surgery.gram_matrix(list(g)).numpy()
    weights, targets = surgery.gradvac_weights(gram, orders, np.full(gram.shape, target), beta)
    return surgery.combine(list(g), weights), targets


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def test_golden(gram, others):
    before = np.full((3, 3), 0.2)
    weights, targets = surgery.gradvac_weights(gram, others(3), before, 0.01)
    np.testing.assert_allclose(weights, [1.780624, 1.976306, 1.800454], atol=1e-6)
    expected = [[0.2, 0.195607, 0.195114], [0.195607, 0.2, 0.196478], [0.195279, 0.196535, 0.2]]
    np.testing.assert_allclose(targets, expected, atol=1e-6)
    assert (before == 0.2).all()


@given(st.data(), st.integers(0, 2**32))
@settings(max_examples=200)
def test_a_target_of_zero_is_pcgrad_with_the_same_order(gradients, data, seed):
    g = data.draw(gradients())
    orders = surgery.pcgrad_orders(len(g), np.random.default_rng(seed), "independent")
    gram = surgery.gram_matrix(list(g)).numpy()
    expected = surgery.combine(list(g), surgery.pcgrad_weights(gram, orders))
    # Cosines end 1e-6 from -1 and 1.
    scale = max(1.0, float(g.norm(dim=1).sum()))
    torch.testing.assert_close(gradvac(g, orders)[0], expected, rtol=1e-5, atol=1e-5 * scale)


@given(st.data(), st.floats(-0.9, 0.9))
def test_after_a_correction_the_cosine_is_the_target(gradients, data, target):
    g = data.draw(gradients(2, 2, 12))
    if min(g.norm(dim=1)) == 0 or abs(before := cosine(*g)) > 0.999:
        return
    update, _ = gradvac(g, [[1], []], target)
    assert cosine(update - g[1], g[1]) == pytest.approx(max(before, target), abs=1e-5)


def test_targets_move_on_every_visit_towards_the_cosine_that_was_found(example, others):
    gram = surgery.gram_matrix(list(example)).numpy()
    _, targets = surgery.gradvac_weights(gram, [[1], [0], []], np.full((3, 3), -0.9), 0.25)
    found = gram[0, 1] / np.sqrt(gram[0, 0] * gram[1, 1])
    assert targets[0, 1] == pytest.approx(0.75 * -0.9 + 0.25 * found)
    assert targets[0, 1] == targets[1, 0]
    assert targets[2].tolist() == [-0.9] * 3


@given(st.data(), st.integers(1, 5), st.floats(-0.9, 0.9))
def test_identical_gradients_give_k_times_it(gradients, others, data, k, target):
    g = data.draw(gradients(1, 1))
    torch.testing.assert_close(gradvac(g.repeat(k, 1), others(k), target)[0], k * g[0])


@pytest.mark.parametrize(
    "rows", [[[0.0, 0], [1, 0]], [[0.0, 0], [0, 0]], [[1.0, 0], [-1, 0]], [[1.0, 0], [2, 0]]]
)
@pytest.mark.parametrize("target", [-1.0, 0.0, 0.5, 1.0])
def test_zero_and_parallel_gradients_give_finite_numbers(rows, target):
    update, targets = gradvac(torch.tensor(rows, dtype=torch.float64), [[1], [0]], target)
    assert update.isfinite().all()
    assert update.abs().max() < 1e4
    assert np.isfinite(targets).all()
