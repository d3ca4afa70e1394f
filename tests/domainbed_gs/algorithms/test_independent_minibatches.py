"""SDMGrad and MoDo: golden vectors, invariants, and how minibatches are cut into parts."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed.errors import UsageError
from domainbed_gs.algorithms.independent_minibatches import nearest_in_simplex
from domainbed_gs.algorithms.sdmgrad import sdmgrad_shares

pytestmark = pytest.mark.usefixtures("float64")

METHODS = ("MoDo", "SDMGrad")


def test_golden_sdmgrad(rule, field):
    golden = field["sdmgrad"]
    names = ("lambda", "lr", "momentum", "n_iter")
    for case in golden["runs"]:
        values = {f"sdmgrad_{'steps' if name == 'n_iter' else name}": case[name] for name in names}
        method = rule("SDMGrad", **values)
        for products, expected in zip(golden["A"], case["calls"], strict=True):
            weights = method.part_weights(np.array(products))
            assert not weights[:2].any()
            np.testing.assert_allclose(weights[2], expected["returned_weights"], atol=1e-12)
            np.testing.assert_allclose(method.shares, expected["inner_w"], atol=1e-12)


def test_golden_modo(rule, field):
    golden = field["modo"]
    assert golden["runs"]
    for case in golden["runs"]:
        method = rule("MoDo", modo_gamma=case["gamma"], modo_rho=case["rho"])
        order = [int(name[1:]) for name in case["sequence"].split(",")]
        for i, expected in zip(order, case["lambda_after"], strict=True):
            weights = method.part_weights(np.array(golden["A"][i]))
            np.testing.assert_allclose(2 * weights, [expected, expected], atol=1e-12)


@given(st.lists(st.floats(-1e18, 1e18) | st.floats(-10, 10), min_size=1, max_size=6))
def test_no_vector_in_the_simplex_is_nearer(values):
    """For the nearest one, the change along each edge is not downwards."""
    values = np.array(values)
    nearest = nearest_in_simplex(values)
    assert (nearest >= 0).all()
    assert nearest.sum() == pytest.approx(1)
    slope = nearest - values
    rounding = 1e-9 + 1e-15 * np.abs(values).max()
    assert ((slope - slope[nearest > 0].max()) >= -rounding).all()


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 5), st.sampled_from([0.1, 1.0]))
def test_shares_stay_in_the_simplex_and_know_no_order(seed, k, lr):
    rng = np.random.default_rng(seed)
    products, order = rng.standard_normal((k, k)), rng.permutation(k)
    shares = nearest_in_simplex(rng.standard_normal(k))
    found = sdmgrad_shares(products, shares, 0.3, lr, 0.5, 20)
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(1)
    if (products.diagonal() > 0).any() and lr == 0.1:
        other = sdmgrad_shares(products[np.ix_(order, order)], shares[order], 0.3, lr, 0.5, 20)
        np.testing.assert_allclose(other, found[order], atol=1e-6)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_limits_are_the_mean_and_shares_that_stay(rule, seed, k):
    rng = np.random.default_rng(seed)
    products, shares = rng.standard_normal((k, k)), nearest_in_simplex(rng.standard_normal(k))
    pulled = rule("SDMGrad", k=k, sdmgrad_lambda=1e9).part_weights(products)
    np.testing.assert_allclose(pulled[2], np.full(k, 1 / k), atol=1e-6)
    method = rule("MoDo", k=k, modo_gamma=0.0)
    method.shares = torch.from_numpy(shares)
    np.testing.assert_allclose(method.part_weights(products), [shares / 2, shares / 2], atol=1e-12)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_modos_shares_stay_in_the_simplex_and_know_no_order(rule, seed, k):
    rng = np.random.default_rng(seed)
    one, other, order = rule("MoDo", k=k), rule("MoDo", k=k), rng.permutation(k)
    for _ in range(3):
        products = rng.standard_normal((k, k))
        one.part_weights(products)
        other.part_weights(products[np.ix_(order, order)])
        assert (one.shares >= 0).all()
        assert one.shares.sum().item() == pytest.approx(1)
        np.testing.assert_allclose(other.shares, one.shares[order], atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_adam_gets_the_parts_gradients_by_the_weights_of_their_inner_products(
    make, rule, minibatches, gradients_of, given_to_adam, name
):
    method, same = make(name), rule(name)
    batches = minibatches(n=7)
    cut = [
        list(zip(x.tensor_split(method.PARTS), y.tensor_split(method.PARTS), strict=True)) for x, y in batches
    ]
    parts = [gradients_of(method, part) for part in zip(*cut, strict=True)]
    weights = same.part_weights((parts[0] @ parts[1].T).numpy())
    expected = sum(torch.from_numpy(w) @ g for w, g in zip(weights, parts, strict=True))
    mean = torch.stack(parts).mean(0)
    losses = [torch.nn.functional.cross_entropy(method.predict(x), y).item() for x, y in batches]
    returned = method.update(batches)
    torch.testing.assert_close(given_to_adam(method), expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(method.shares, same.shares, atol=1e-9)
    assert set(returned) == {"loss", "cosine", "removed", "fallback"}
    assert returned["loss"] == pytest.approx(np.mean(losses))
    cosines = torch.nn.functional.cosine_similarity(mean[[0, 0, 1]], mean[[1, 2, 2]])
    assert returned["cosine"] == pytest.approx(cosines.mean().item())
    assert returned["removed"] == pytest.approx(1 - 3 * (expected.norm() / mean.sum(0).norm()).item())


@pytest.mark.parametrize(("name", "size"), [("MoDo", 1), ("SDMGrad", 2)])
def test_minibatches_with_fewer_samples_than_parts_are_refused(make, minibatches, name, size):
    message = f"{name} cuts each minibatch into .* batch_size must be at least {size + 1}, not {size}"
    with pytest.raises(UsageError, match=message):
        make(name, batch_size=size)
    with pytest.raises(UsageError, match=message):
        make(name).update(minibatches(n=size))


@pytest.mark.parametrize("name", METHODS)
def test_gradients_that_are_not_finite_leave_the_shares_as_they_are(make, minibatches, name):
    (x, y), *rest = minibatches()
    method = make(name)
    method.update([(torch.full_like(x, torch.nan), y), *rest])
    assert method.shares.tolist() == pytest.approx([1 / 3] * 3)
