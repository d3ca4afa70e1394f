"""Golden vectors E.1 and invariants E.2 of the gradient surgery specification: PCGrad."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed_gs import surgery

ASCENDING = [[1, 2], [0, 2], [0, 1]]
DESCENDING = [order[::-1] for order in ASCENDING]


def pcgrad(g, orders):
    weights = surgery.pcgrad_weights(surgery.gram_matrix(list(g)).numpy(), orders)
    return surgery.combine(list(g), weights)


def explicit_pcgrad(g, orders):
    """The algorithm box, on the gradients themselves."""
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
def test_golden(example, gram, orders, weights, result):
    np.testing.assert_allclose(surgery.pcgrad_weights(gram, orders), weights, atol=1e-6)
    np.testing.assert_allclose(pcgrad(example, orders), result, atol=1e-6)


def test_the_mean_is_the_same_for_shared_and_independent_orders_and_the_variance_is_not(example):
    """A.5: total variance 0.0824 (shared) against 0.0746 (independent)."""
    of_others = [list(itertools.permutations([j for j in range(3) if j != i])) for i in range(3)]
    independent = torch.stack([pcgrad(example, orders) for orders in itertools.product(*of_others)])
    shared = torch.stack(
        [
            pcgrad(example, [[j for j in p if j != i] for i in range(3)])
            for p in itertools.permutations(range(3))
        ]
    )
    torch.testing.assert_close(shared.mean(0), independent.mean(0))
    assert shared.var(0, unbiased=False).sum().item() == pytest.approx(0.0824, abs=5e-5)
    assert independent.var(0, unbiased=False).sum().item() == pytest.approx(0.0746, abs=5e-5)


class TestInvariants:
    @given(st.data(), st.integers(1, 5))
    def test_identical_gradients_give_k_times_it(self, gradients, others, data, k):
        g = data.draw(gradients(1, 1))
        torch.testing.assert_close(pcgrad(g.repeat(k, 1), others(k)), k * g[0])

    @given(st.data())
    def test_without_a_conflict_the_result_is_the_plain_sum(self, gradients, others, data):
        positive = data.draw(gradients()).abs() + 1
        torch.testing.assert_close(pcgrad(positive, others(len(positive))), positive.sum(0))

    @given(st.data())
    def test_two_that_conflict(self, gradients, data):
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
    def test_the_gram_matrix_gives_what_the_explicit_algorithm_gives(
        self, gradients, others, data, seed, order
    ):
        g = data.draw(gradients(2))
        orders = surgery.pcgrad_orders(len(g), np.random.default_rng(seed), order)
        assert [sorted(each) for each in orders] == others(len(g))
        scale = max(1.0, float(g.norm(dim=1).max()))
        # A product that is 0 but for rounding may be seen as a conflict by one of the two only.
        torch.testing.assert_close(
            pcgrad(g, orders), explicit_pcgrad(g, orders), rtol=1e-6, atol=1e-6 * scale
        )


def test_visiting_itself_can_change_the_result(others):
    rng = np.random.default_rng(0)
    found = False
    for _ in range(2000):
        g = torch.from_numpy(rng.standard_normal((4, 3)))
        itself_too = [[*order, i] for i, order in enumerate(others(4))]
        found = found or not torch.allclose(pcgrad(g, itself_too), pcgrad(g, others(4)))
    assert found
    assert surgery.pcgrad_orders(3, rng, "fixed", include_self=True) == [[0, 1, 2]] * 3
