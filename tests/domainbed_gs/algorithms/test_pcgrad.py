"""Golden vectors and invariants of PCGrad."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

ASCENDING = [[1, 2], [0, 2], [0, 1]]
DESCENDING = [order[::-1] for order in ASCENDING]


@pytest.fixture(scope="module")
def pcgrad(pcgrad_weights):
    """`pcgrad(gradients, orders)`: the combined gradient (P,) for given orders."""
    return lambda g, orders: torch.from_numpy(pcgrad_weights((g @ g.T).numpy(), orders)) @ g


def explicit_pcgrad(g, orders):
    """The paper's algorithm, on the gradients themselves."""
    total = torch.zeros_like(g[0])
    for i, order in enumerate(orders):
        v = g[i].clone()
        for j in order:
            if v @ g[j] < 0:
                v = v - (v @ g[j]) / (g[j] @ g[j]) * g[j]
        total += v
    return total


@pytest.mark.parametrize(
    ("orders", "weights", "result"),
    [
        (
            ASCENDING,
            [1.44186, 1.424866, 1.377742],
            [8.505932, -4.342576, -5.669334, 0, 1.202382, 0.141371, 1.296629, -2.704501],
        ),
        (
            DESCENDING,
            [1.455748, 1.357287, 1.315789],
            [8.356111, -4.465705, -5.486112, 0, 0.994374, 0.124494, 1.07737, -2.336197],
        ),
    ],
)
def test_golden(pcgrad_weights, pcgrad, example, gram, orders, weights, result):
    np.testing.assert_allclose(pcgrad_weights(gram, orders), weights, atol=1e-6)
    np.testing.assert_allclose(pcgrad(example, orders), result, atol=1e-6)


def test_shared_and_independent_orders_have_the_same_mean_and_another_variance(pcgrad, example):
    """The total variance is 0.0824 for shared orders, 0.0746 for independent ones."""
    of_others = [list(itertools.permutations([j for j in range(3) if j != i])) for i in range(3)]
    independent = torch.stack([pcgrad(example, orders) for orders in itertools.product(*of_others)])
    shared = torch.stack(
        [
            pcgrad(example, [[j for j in permutation if j != i] for i in range(3)])
            for permutation in itertools.permutations(range(3))
        ]
    )
    torch.testing.assert_close(shared.mean(0), independent.mean(0))
    assert shared.var(0, unbiased=False).sum().item() == pytest.approx(0.0824, abs=5e-5)
    assert independent.var(0, unbiased=False).sum().item() == pytest.approx(0.0746, abs=5e-5)


class TestInvariants:
    @given(st.data(), st.integers(1, 5))
    def test_identical_gradients_give_k_times_the_gradient(self, gradients, pcgrad, others, data, k):
        g = data.draw(gradients(1, 1))
        torch.testing.assert_close(pcgrad(g.repeat(k, 1), others(k)), k * g[0])

    @given(st.data())
    def test_without_a_conflict_the_result_is_the_plain_sum(self, gradients, pcgrad, others, data):
        positive = data.draw(gradients()).abs() + 1
        torch.testing.assert_close(pcgrad(positive, others(len(positive))), positive.sum(0))

    @given(st.data())
    def test_two_gradients_that_conflict(self, gradients, pcgrad, data):
        a, b = data.draw(gradients(2, 2))
        if a @ b >= 0:
            b = -b
        if a @ b == 0:
            return
        expected = a + b - (a @ b) / (b @ b) * b - (a @ b) / (a @ a) * a
        result = pcgrad(torch.stack([a, b]), [[1], [0]])
        torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)

    @given(st.data(), st.integers(0, 2**32), st.sampled_from(["independent", "shared", "fixed"]))
    @settings(max_examples=200)
    def test_inner_products_give_what_the_explicit_algorithm_gives(
        self, gradients, rule, others, data, seed, order
    ):
        g = data.draw(gradients(2))
        method = rule("PCGrad", order=order)
        method.surgery_seed = seed
        orders = method.orders(len(g))
        assert [sorted(each) for each in orders] == others(len(g))
        found = torch.from_numpy(method.weights((g @ g.T).numpy())) @ g
        scale = max(1.0, float(g.norm(dim=1).max()))
        # A product that is 0 but for rounding may be seen as a conflict by one of the two only.
        torch.testing.assert_close(found, explicit_pcgrad(g, orders), rtol=1e-6, atol=1e-6 * scale)


class TestOrders:
    def drawn(self, rule, order, k=6, updates=20):
        """The orders of several updates."""
        method = rule("PCGrad", k=k, order=order)
        found = []
        for method.updates in range(updates):
            found.append(method.orders(k))
            assert method.orders(k) == found[-1]
        return found

    def test_fixed_orders_are_ascending(self, rule, others):
        assert self.drawn(rule, "fixed", updates=3) == [others(6)] * 3

    def test_shared_orders_are_one_permutation_without_the_environment_itself(self, rule):
        drawn = self.drawn(rule, "shared")
        for orders in drawn:
            without_0, *rest = orders
            for at in range(6):
                permutation = [*without_0[:at], 0, *without_0[at:]]
                if all(order == [j for j in permutation if j != i] for i, order in enumerate(rest, 1)):
                    break
            else:
                raise AssertionError(f"no permutation has the orders {orders}")
        assert len({tuple(orders[0]) for orders in drawn}) > 5

    def test_independent_orders_differ_between_environments_and_updates(self, rule):
        drawn = self.drawn(rule, "independent")
        # Others than 0 and 1, in the order in which these two visit them.
        alike = [[j for j in orders[0] if j != 1] == [j for j in orders[1] if j != 0] for orders in drawn]
        assert np.mean(alike) < 0.5
        assert len({tuple(orders[0]) for orders in drawn}) > 5

    @pytest.mark.parametrize("order", ["independent", "shared", "fixed"])
    def test_an_environment_may_visit_itself_too(self, rule, order):
        method = rule("PCGrad", order=order)
        assert [sorted(each) for each in method.orders(3, include_self=True)] == [[0, 1, 2]] * 3
        assert rule("PCGrad", order="fixed").orders(3, include_self=True) == [[0, 1, 2]] * 3


def test_visiting_itself_can_change_the_result(pcgrad, others):
    rng = np.random.default_rng(0)
    found = False
    for _ in range(2000):
        g = torch.from_numpy(rng.standard_normal((4, 3)))
        itself_too = [[*order, i] for i, order in enumerate(others(4))]
        found = not torch.allclose(pcgrad(g, itself_too), pcgrad(g, others(4)))
        if found:
            break
    assert found


def test_include_self_is_passed_on_to_the_orders(rule, gram):
    asked = []
    for include_self in (False, True):
        method = rule("PCGrad", include_self=include_self)
        method.orders = lambda k, include_self: asked.append(include_self) or [[]] * k
        assert method.weights(gram).tolist() == [1, 1, 1]
    assert asked == [False, True]
