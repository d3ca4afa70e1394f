"""Golden vectors and invariants of Nash-MTL, the length of its direction, and what it remembers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from domainbed_gs.algorithms.nash_mtl import nash_mtl_weights


def test_golden(gram):
    np.testing.assert_allclose(nash_mtl_weights(gram), [0.206914, 0.234982, 0.198592], atol=1e-6)


@given(st.integers(1, 10), st.integers(0, 2**32), st.integers(-12, 12))
def test_it_solves_the_bargaining_equations_and_has_a_fixed_length(k, seed, scale):
    rng = np.random.default_rng(seed)
    g = rng.standard_normal((k, 20)) * 10.0 ** (scale + rng.uniform(-2, 2, (k, 1)))
    alpha = nash_mtl_weights(g @ g.T)
    assert (alpha > 0).all()
    np.testing.assert_allclose(alpha * (g @ g.T @ alpha), 1, rtol=1e-11)
    assert np.square(alpha @ g).sum() == pytest.approx(k)


@given(st.floats(-0.99, 1), st.floats(-6, 6), st.floats(-6, 6))
def test_two_environments_are_weighted_by_their_inverse_norms(cosine, log_a, log_b):
    norms = np.array([10**log_a, 10**log_b])
    gram = np.array([[1, cosine], [cosine, 1]]) * np.outer(norms, norms)
    np.testing.assert_allclose(nash_mtl_weights(gram), 1 / norms / np.sqrt(1 + cosine), rtol=1e-9)


@pytest.mark.parametrize(
    "start",
    [
        [0.2, 0.2, 0.2],
        [1e-9, 1.0, 1e9],
        [1e30, 1e30, 1e30],
        [0.0, 1.0, 1.0],
        [np.nan, 1.0, 1.0],
        [-1.0, 1.0, 1.0],
    ],
)
def test_the_start_does_not_change_the_solution(gram, start):
    np.testing.assert_allclose(nash_mtl_weights(gram, np.array(start)), nash_mtl_weights(gram), rtol=1e-12)


def test_a_gradient_of_zero_has_no_weight_and_changes_no_other(gram):
    with_zero = np.zeros((4, 4))
    with_zero[:3, :3] = gram
    start = np.array([0.2, 0.2, 0.2, 0.0])
    expected = np.append(nash_mtl_weights(gram), 0)
    np.testing.assert_allclose(nash_mtl_weights(with_zero, start), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "g",
    [
        [[1.0, 2.0], [-2.0, -4.0]],
        [[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]],
        [[1.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, -1.0]],
    ],
)
def test_at_a_pareto_stationary_point_weights_are_finite_and_the_direction_harms_none(g):
    g = np.array(g)
    alpha = nash_mtl_weights(g @ g.T)
    assert (alpha > 0).all()
    assert alpha.max() < 1e5
    assert (g @ (alpha @ g) / np.linalg.norm(g, axis=1)).min() >= -1e-3


def test_the_regularisation_begins_without_a_jump():
    """Two unit gradients at an angle of pi - e: the least distance of their hull from 0 is e / 2."""
    weights = []
    for e in np.linspace(1.9e-4, 2.1e-4, 101):
        g = np.array([[1.0, 0.0], [-np.cos(e), np.sin(e)]])
        weights.append(nash_mtl_weights(g @ g.T)[0])
    assert np.abs(np.diff(np.log(weights))).max() < 0.01


def test_directions_fade_as_the_gradients_come_to_cancel(rule):
    """The mean stays 0.5 long; a fixed length would be that of rounding at the end."""
    method = rule("NashMTL")
    angles = [1e-2, *(np.array([2.0, 1.0, 0.5, 0.1, 0.0]) * method.tolerance)]
    found = []
    for angle in angles:
        g = np.array([[1.0, 0.0], [-2.0, 2 * angle]])
        weights = method.weights(g @ g.T)
        assert np.abs(weights @ np.abs(g)).max() < 2 / method.tolerance
        found.append(np.linalg.norm(weights @ g))
    assert found[0] == pytest.approx(0.5, rel=1e-3)
    assert (np.diff(found) <= 1e-9).all()
    assert found[-1] < 1e-3


def lengths(update_with, g, **hparams):
    combined, _ = update_with(g, "NashMTL", **hparams)
    return combined.norm().item()


def test_the_direction_has_the_length_asked_for(update_with, example, gram):
    mean = example.mean(0).norm().item()
    assert lengths(update_with, example) == pytest.approx(mean, rel=1e-9)
    assert lengths(update_with, example, nash_length="solution") == pytest.approx(3**0.5, rel=1e-9)
    reference = (3 * np.linalg.norm(gram)) ** 0.5
    free = lengths(update_with, example, nash_length="reference", nash_max_norm=1e9)
    assert free == pytest.approx(reference, rel=1e-9)
    clipped = lengths(update_with, example, nash_length="reference", nash_max_norm=reference / 2)
    assert clipped == pytest.approx(reference / 2, rel=1e-9)


@pytest.mark.parametrize("length", ["mean", "solution", "reference"])
def test_the_length_changes_no_direction(rule, gram, length):
    found = rule("NashMTL", nash_length=length).weights(gram)
    alpha = nash_mtl_weights(gram)
    np.testing.assert_allclose(found / np.linalg.norm(found), alpha / np.linalg.norm(alpha), rtol=1e-9)


def test_an_update_remembers_its_solution(make, minibatches, gradients_of):
    algorithm = make("NashMTL")
    assert algorithm.training_state()["values"]["alpha"] is None
    batches = minibatches()
    g = gradients_of(algorithm, batches).double()
    algorithm.update(batches)
    alpha = algorithm.training_state()["values"]["alpha"]
    np.testing.assert_allclose(alpha, nash_mtl_weights((g @ g.T).numpy()), rtol=1e-4)


def test_the_next_update_starts_from_the_last_solution(rule, gram, monkeypatch):
    starts = []

    def solved(gram, start, tolerance):
        starts.append(start)
        return np.array([0.5, 0.25, 0.125])

    monkeypatch.setattr("domainbed_gs.algorithms.nash_mtl.nash_mtl_weights", solved)
    method = rule("NashMTL")
    method.weights(gram)
    method.weights(gram)
    assert starts[0] is None
    assert starts[1].tolist() == [0.5, 0.25, 0.125]
    assert torch.equal(method.alpha, torch.tensor([0.5, 0.25, 0.125], dtype=torch.float64))
