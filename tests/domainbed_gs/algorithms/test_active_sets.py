"""Conditions that all exact solvers of the Gram family fulfil, on gradients made to break them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed_gs.algorithms import active_sets
from domainbed_gs.algorithms.cagrad import cagrad_weights
from domainbed_gs.algorithms.dual_proj import dual_proj_weights
from domainbed_gs.algorithms.mgda import mgda_weights
from domainbed_gs.algorithms.nash_mtl import nash_mtl_weights
from domainbed_gs.algorithms.upgrad import upgrad_weights

METHODS = {
    "mgda": mgda_weights,
    "cagrad": lambda gram: cagrad_weights(gram, 0.5),
    "nash_mtl": nash_mtl_weights,
    "upgrad": upgrad_weights,
    "dual_proj": dual_proj_weights,
}
method = pytest.mark.parametrize("method", METHODS)
LARGEST = active_sets.MAX_ENUMERATED + 2
NOISE = 1e-7  # inner products of nearly opposite gradients keep about half of the digits


def rounded(g, rng):
    return np.round(2 * g)


def with_copy(g, rng):
    return np.vstack([g[1:], g[-1:]])


def with_opposite(g, rng):
    return np.vstack([g[1:], -g[-1:] * rng.uniform(0.5, 2)])


def with_zero(g, rng):
    return g * (rng.uniform(size=(len(g), 1)) < 0.7)


def with_nearly_parallel(g, rng):
    near = g[0] * rng.choice([-1, 1]) + 10.0 ** -rng.integers(1, 5) * rng.standard_normal(g.shape[1])
    return np.vstack([g[1:], near])


def of_low_rank(g, rng):
    return rng.standard_normal((len(g), max(1, len(g) - 2))) @ g[: max(1, len(g) - 2)]


def of_several_scales(g, rng):
    return g * 10.0 ** rng.uniform(-3, 3, (len(g), 1))


CHANGES = (
    rounded,
    with_copy,
    with_opposite,
    with_zero,
    with_nearly_parallel,
    of_low_rank,
    of_several_scales,
)


@st.composite
def hard_gradients(draw, min_k=1, max_k=6):
    """K gradients (K, P): random, then changed up to twice, on a scale from 1e-12 to 1e12."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    g = rng.standard_normal((draw(st.integers(min_k, max_k)), draw(st.integers(1, 12))))
    for change in draw(st.lists(st.sampled_from(CHANGES), max_size=2)):
        g = change(g, rng)
    return g * 10.0 ** draw(st.integers(-12, 12))


def norms_of(g):
    """Norms (K,), with 1 for 0, and the greatest."""
    norms = np.linalg.norm(g, axis=1)
    return np.where(norms > 0, norms, 1), norms.max()


def assert_mgda_is_shortest(g, weights):
    norms, greatest = norms_of(g)
    d = weights @ g
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1)
    assert ((g @ d - d @ d) / norms).min() >= -1e-12 * greatest


def assert_nothing_conflicts(g, weights):
    norms, greatest = norms_of(g)
    assert (weights >= 1 / len(g) - 1e-15).all()
    assert (g @ (weights @ g) / norms).min() >= -NOISE * greatest


def assert_nash_is_solved(g, weights):
    norms, _ = norms_of(g)
    unit = (g / norms[:, None])[weights > 0]
    nearest = np.linalg.norm(mgda_weights(unit @ unit.T) @ unit)
    assert ((weights > 0) == (np.linalg.norm(g, axis=1) > 0)).all()
    if nearest > 1e-3:
        equations = (weights * (g @ (weights @ g)))[weights > 0]
        np.testing.assert_allclose(equations, 1, rtol=1e-9)
    assert (g @ (weights @ g) / norms).min() >= -1e-4 * len(g)


def assert_cagrad_is_certified(g, weights, c=0.5):
    """Its least d.g_k equals the dual objective of its own g_w, so that no d in reach has a greater one."""
    norms, greatest = norms_of(g)
    mean = g.mean(axis=0)
    radius = c * np.linalg.norm(mean)
    if radius < 1e-4 * greatest:
        return
    d = weights @ g
    shares = weights - 1 / len(g)
    assert (shares >= -1e-15).all()
    if abs(np.linalg.norm(d - mean) - radius) > 1e-6 * radius:
        assert np.linalg.norm(d - mean) < radius
        assert (g @ d / norms).min() >= -NOISE * greatest  # g_w is 0: see `cagrad_weights`
        return
    g_w = shares @ g / shares.sum()
    bound = g_w @ mean + radius * np.linalg.norm(g_w)
    assert (g @ d).min() == pytest.approx(bound, abs=1e-6 * radius * greatest)


CONDITIONS = {
    "mgda": assert_mgda_is_shortest,
    "cagrad": assert_cagrad_is_certified,
    "nash_mtl": assert_nash_is_solved,
    "upgrad": assert_nothing_conflicts,
    "dual_proj": assert_nothing_conflicts,
}


@method
@settings(max_examples=150)
@given(g=hard_gradients())
def test_conditions_of_the_definition(method, g):
    if g.any():
        CONDITIONS[method](g, METHODS[method](g @ g.T))


@method
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), rank=st.integers(3, 20), scale=st.integers(-12, 12))
def test_conditions_where_there_are_too_many_supports_to_try(method, seed, rank, scale):
    g = np.random.default_rng(seed).standard_normal((LARGEST, rank)) * 10.0**scale
    CONDITIONS[method](g, METHODS[method](g @ g.T))


@method
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), k=st.integers(1, 6))
def test_trying_supports_equals_the_iterative_solver(method, seed, k):
    g = np.random.default_rng(seed).standard_normal((k, 12))
    with pytest.MonkeyPatch.context() as patch:
        for module in ("mgda", "cagrad", "dual_proj"):
            patch.setattr(f"domainbed_gs.algorithms.{module}.MAX_ENUMERATED", 0)
        iterative = METHODS[method](g @ g.T)
    np.testing.assert_allclose(iterative, METHODS[method](g @ g.T), rtol=1e-6, atol=1e-9)


@method
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), k=st.integers(1, 6), scale=st.integers(-12, 12))
def test_scale_and_order_of_environments_do_not_matter(method, seed, k, scale):
    rng = np.random.default_rng(seed)
    g = rng.standard_normal((k, 12))
    order, factor = rng.permutation(k), 10.0**scale
    weights = METHODS[method](g @ g.T)
    changed = METHODS[method](factor**2 * g[order] @ g[order].T)
    if method == "nash_mtl":
        changed = changed * factor  # |d|^2 is K at any scale
    np.testing.assert_allclose(changed, weights[order], rtol=1e-8, atol=1e-10)


@method
@pytest.mark.parametrize("k", [1, 2, 5, LARGEST])
def test_identical_gradients_give_that_gradient(method, k, example):
    g = example[:1].repeat(k, 1).numpy()
    length = {"cagrad": 1.5, "nash_mtl": np.sqrt(k) / np.linalg.norm(g[0])}.get(method, 1)
    np.testing.assert_allclose(METHODS[method](g @ g.T) @ g, length * g[0], rtol=1e-9)


@method
@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
@pytest.mark.parametrize("k", [1, 3, LARGEST])
def test_weights_are_the_means_if_all_gradients_are_zero_or_one_is_not_finite(method, bad, k):
    gram = np.zeros((k, k))
    gram[0, 0] = bad
    assert METHODS[method](gram).tolist() == [1 / k] * k


@method
def test_the_given_inner_products_are_not_changed(method, gram):
    before = gram.copy()
    METHODS[method](gram)
    assert (gram == before).all()


def test_supports_are_all_nonempty_subsets_small_ones_first():
    found = [support.tolist() for support in active_sets.supports(3)]
    assert found == [[0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]]
