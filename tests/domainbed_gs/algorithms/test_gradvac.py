"""Golden vectors and invariants of GradVac, and what it remembers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed.errors import UsageError


def inner_products(g):
    return (g @ g.T).numpy()


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def test_golden(gradvac_weights, gram, others):
    weights, targets = gradvac_weights(gram, others(3), 0.2, beta=0.01)
    np.testing.assert_allclose(weights, [1.780624, 1.976306, 1.800454], atol=1e-6)
    expected = [[0.2, 0.195607, 0.195114], [0.195607, 0.2, 0.196478], [0.195279, 0.196535, 0.2]]
    np.testing.assert_allclose(targets, expected, atol=1e-6)


@given(st.data(), st.integers(0, 2**32))
@settings(max_examples=200)
def test_targets_of_zero_give_pcgrad_with_the_same_orders(gradients, gradvac_weights, rule, data, seed):
    g = data.draw(gradients())
    gram, pcgrad = inner_products(g), rule("PCGrad")
    pcgrad.surgery_seed = seed
    weights, _ = gradvac_weights(gram, pcgrad.orders(len(g)))
    # Cosines are kept 1e-6 away from -1 and 1.
    scale = max(1.0, float(g.norm(dim=1).sum()))
    np.testing.assert_allclose(weights @ g.numpy(), pcgrad.weights(gram) @ g.numpy(), 1e-5, 1e-5 * scale)


def test_orders_are_those_of_pcgrad(rule):
    assert rule("GradVac").orders(5) == rule("PCGrad").orders(5)


@given(st.data(), st.floats(-0.9, 0.9))
def test_after_a_correction_the_cosine_is_the_target(gradients, gradvac_weights, data, target):
    g = data.draw(gradients(2, 2, 12))
    if min(g.norm(dim=1)) == 0 or abs(before := cosine(*g)) > 0.999:
        return
    weights, _ = gradvac_weights(inner_products(g), [[1], []], target)
    # The second gradient visits none, so it is added to the first, corrected one as it is.
    corrected = torch.from_numpy(weights) @ g - g[1]
    assert cosine(corrected, g[1]) == pytest.approx(max(before, target), abs=1e-5)


def test_targets_move_at_every_visit_towards_the_cosine_found(gradvac_weights, gram):
    _, targets = gradvac_weights(gram, [[1], [0], []], -0.9, beta=0.25)
    found = gram[0, 1] / np.sqrt(gram[0, 0] * gram[1, 1])
    assert targets[0, 1] == pytest.approx(0.75 * -0.9 + 0.25 * found)
    assert targets[0, 1] == targets[1, 0]
    assert targets[2].tolist() == [-0.9] * 3


@given(st.data(), st.integers(1, 5), st.floats(-0.9, 0.9))
def test_identical_gradients_give_k_times_the_gradient(gradients, gradvac_weights, others, data, k, target):
    g = data.draw(gradients(1, 1)).repeat(k, 1)
    weights, _ = gradvac_weights(inner_products(g), others(k), target)
    np.testing.assert_allclose(weights @ g.numpy(), k * g[0].numpy(), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    "rows", [[[0.0, 0], [1, 0]], [[0.0, 0], [0, 0]], [[1.0, 0], [-1, 0]], [[1.0, 0], [2, 0]]]
)
@pytest.mark.parametrize("target", [-1.0, 0.0, 0.5, 1.0])
def test_zero_and_parallel_gradients_give_finite_numbers(gradvac_weights, rows, target):
    g = torch.tensor(rows, dtype=torch.float64)
    weights, targets = gradvac_weights(inner_products(g), [[1], [0]], target)
    combined = weights @ g.numpy()
    assert np.isfinite(combined).all()
    assert np.abs(combined).max() < 1e4
    assert np.isfinite(targets).all()


def test_an_update_remembers_the_cosines(make, minibatches, gradients_of):
    algorithm = make("GradVac", k=2, gradvac_beta=1.0)
    batches = minibatches(2)
    assert not algorithm.targets.any()
    g = gradients_of(algorithm, batches)
    algorithm.update(batches)
    cosine = torch.nn.functional.cosine_similarity(*g, dim=0).item()
    np.testing.assert_allclose(algorithm.targets, [[0, cosine], [cosine, 0]], atol=1e-5)
    assert algorithm.training_state()["values"]["targets"].any()


@pytest.mark.parametrize(("beta", "bound"), [(-0.1, "least 0"), (1.1, "most 1")])
def test_a_beta_outside_0_to_1_is_refused(rule, beta, bound):
    with pytest.raises(UsageError, match=f"hyper-parameter gradvac_beta must be at {bound}, not {beta}"):
        rule("GradVac", gradvac_beta=beta)
