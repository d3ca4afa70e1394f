"""Golden vectors and invariants of PGrad."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from domainbed_gs.algorithms.pgrad import principal_coefficients, principal_gradient

pytestmark = pytest.mark.usefixtures("float64")


def of(trajectory, directions=4):
    """The principal gradient of points (T, P)."""
    points = torch.as_tensor(trajectory, dtype=torch.float64)
    return principal_gradient(list(points[1:] - points[0]), directions).numpy()


def trajectories(seed, points=7, size=5):
    return np.random.default_rng(seed).standard_normal((points, size)).cumsum(0)


def test_golden(field):
    for case in field["pgrad"]:
        found = of(case["trajectory"], case["n_directions"])
        np.testing.assert_allclose(found, case["gradient"], atol=1e-12)
        assert np.linalg.norm(found) == pytest.approx(case["norm"], abs=1e-12)


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_it_is_as_long_as_the_way_back_and_along_it(seed, directions):
    points = trajectories(seed)
    found, way = of(points, directions), points[0] - points[-1]
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(way))
    assert found @ way >= -1e-9


@given(st.integers(0, 2**32))
def test_it_moves_with_the_coordinates_and_knows_no_order_of_inner_points(seed):
    points, rng = trajectories(seed), np.random.default_rng(seed + 1)
    found = of(points)
    rotation = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    np.testing.assert_allclose(of(7 * points @ rotation + 3), 7 * found @ rotation, atol=1e-6)
    inner = 1 + rng.permutation(5)
    np.testing.assert_allclose(of(points[[0, *inner, 6]]), found, atol=1e-6)


@given(st.integers(0, 2**32), st.integers(2, 8), st.integers(1, 5))
def test_a_straight_line_gives_the_way_back(seed, points, directions):
    rng = np.random.default_rng(seed)
    places = np.concatenate([[0], rng.uniform(-1, 3, points - 2), [2]])
    line = places[:, None] * rng.standard_normal(4) + rng.standard_normal(4)
    np.testing.assert_allclose(of(line, directions), line[0] - line[-1], rtol=1e-6, atol=1e-9)


@given(st.integers(1, 6), st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5))
def test_equal_points_give_no_direction(points, point):
    assert not of(np.tile(point, (points + 1, 1))).any()


def test_points_that_are_not_finite_give_no_direction():
    assert not principal_coefficients(np.full((3, 3), np.nan), 4).any()


def test_the_update_takes_the_outer_step_from_where_it_started(make, minibatches, weights_of):
    """With one pass and one environment there is one inner step, the way back of which is the direction."""
    method = make("PGrad", k=1, pgrad_passes=1, pgrad_outer_lr=0.5, weight_decay=0.1)
    adam = make("ERM", k=1)
    start = weights_of(method)
    returned = method.update(minibatches(1))
    expected = adam.update(minibatches(1))
    way = start - weights_of(adam)
    torch.testing.assert_close(weights_of(method), start - 0.5 * (way + 0.1 * start))
    assert returned["loss"] == pytest.approx(expected["loss"])


def test_each_pass_visits_every_environment_once_with_the_next_part(make, minibatches):
    method = make("PGrad")
    batches = minibatches(n=8)
    visits = method.visits(batches)
    assert [len(y) for _, y in visits] == [2] * 3 + [3] * 6
    for x, _ in batches:
        parts = [part for part, _ in visits if any(torch.equal(part[0], sample) for sample in x)]
        assert torch.equal(torch.cat(parts), x)
    orders = set()
    for _ in range(10):
        method.count_update()
        orders.add(tuple(x.sum().item() for x, _ in method.visits(batches)))
    assert len(orders) > 5


def test_parts_without_samples_are_left_out(make, minibatches):
    method = make("PGrad")
    assert [len(y) for _, y in method.visits(minibatches(n=2))] == [1] * 6
    assert np.isfinite(method.update(minibatches(n=1))["loss"])


def test_frozen_parameters_stay_as_they_are(make, minibatches):
    method = make("PGrad", weight_decay=0.1)
    frozen = next(method.parameters()).requires_grad_(False)
    before = frozen.clone()
    method.update(minibatches())
    assert torch.equal(frozen, before)
