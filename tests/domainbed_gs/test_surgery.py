"""Golden vectors E.1 and invariants E.2 of the gradient surgery specification."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from domainbed_gs import surgery

G = torch.tensor(
    [[3, -4, -1, 0, -2, 0, -2, 3], [1, 1, -2, 0, -1, 3, 1, -3], [2, 0, -1, 0, 4, -3, 2, -2]],
    dtype=torch.float64,
)
GRAM = [[43, -8, -11], [-8, 26, -1], [-11, -1, 38]]
ASCENDING = [[1, 2], [0, 2], [0, 1]]
DESCENDING = [order[::-1] for order in ASCENDING]


def gradients(min_k=1, max_k=5, max_p=12):
    """K gradients (K, P) with zeros, ties, and scales from 1e-3 to 1e3."""
    values = st.one_of(
        st.integers(-3, 3).map(float), st.floats(-1e3, 1e3).filter(lambda v: v == 0 or abs(v) > 1e-3)
    )
    shapes = st.tuples(st.integers(min_k, max_k), st.integers(1, max_p))
    return shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=values)).map(torch.from_numpy)


def pcgrad(g, orders):
    weights = surgery.pcgrad_weights(surgery.gram_matrix(list(g)).numpy(), orders)
    return surgery.combine(list(g), weights)


def agr_rand(consensus):
    """The combined gradient with noise from seed 0, and its sigma."""
    kept = surgery.agr_sum(consensus)
    sigma = surgery.agr_rand_sigma(kept, consensus.agree)
    generator = torch.Generator().manual_seed(0)
    return surgery.agr_rand(kept, consensus.agree, sigma, generator), sigma.item()


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


class TestGolden:
    def test_agreement_and_agr_sum(self):
        consensus = surgery.sign_consensus(iter(G))
        assert consensus.agree.int().tolist() == [1, 0, 1, 0, 0, 0, 0, 0]
        assert surgery.agr_sum(consensus).tolist() == [6, 0, -4, 0, 0, 0, 0, 0]
        assert consensus.agreement == 0.25

    @pytest.mark.parametrize(("zero_agrees", "sigma"), [(False, 5.0), (True, 10 / 3)])
    def test_agr_rand_sigma(self, zero_agrees, sigma):
        consensus = surgery.sign_consensus(iter(G), zero_agrees)
        assert surgery.agr_rand_sigma(surgery.agr_sum(consensus), consensus.agree).item() == pytest.approx(
            sigma, abs=1e-6
        )

    def test_gram(self):
        assert surgery.gram_matrix(list(G)).tolist() == GRAM

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
    def test_pcgrad(self, orders, weights, result):
        np.testing.assert_allclose(surgery.pcgrad_weights(np.array(GRAM, float), orders), weights, atol=1e-6)
        np.testing.assert_allclose(pcgrad(G, orders), result, atol=1e-6)

    def test_pcgrads_mean_is_the_same_for_shared_and_independent_orders_and_its_variance_is_not(self):
        """A.5: total variance 0.0824 (shared) against 0.0746 (independent)."""
        others = [list(itertools.permutations([j for j in range(3) if j != i])) for i in range(3)]
        independent = torch.stack([pcgrad(G, orders) for orders in itertools.product(*others)])
        shared = torch.stack(
            [
                pcgrad(G, [[j for j in p if j != i] for i in range(3)])
                for p in itertools.permutations(range(3))
            ]
        )
        torch.testing.assert_close(shared.mean(0), independent.mean(0))
        assert shared.var(0, unbiased=False).sum().item() == pytest.approx(0.0824, abs=5e-5)
        assert independent.var(0, unbiased=False).sum().item() == pytest.approx(0.0746, abs=5e-5)


class TestInvariants:
    @given(gradients(1, 1))
    def test_one_environment_changes_nothing(self, g):
        torch.testing.assert_close(surgery.agr_sum(surgery.sign_consensus(iter(g))), g[0])
        torch.testing.assert_close(pcgrad(g, [[]]), g[0])

    @given(gradients(1, 1), st.integers(2, 5))
    def test_identical_gradients_give_k_times_it(self, g, k):
        same = g.repeat(k, 1)
        torch.testing.assert_close(surgery.agr_sum(surgery.sign_consensus(iter(same))), k * g[0])
        orders = [[j for j in range(k) if j != i] for i in range(k)]
        torch.testing.assert_close(pcgrad(same, orders), k * g[0])

    @given(gradients(2), st.randoms())
    def test_agr_sum_does_not_depend_on_the_order_of_environments(self, g, random):
        permuted = list(g)
        random.shuffle(permuted)
        a, b = surgery.sign_consensus(iter(g)), surgery.sign_consensus(iter(permuted))
        assert torch.equal(a.agree, b.agree)
        torch.testing.assert_close(surgery.agr_sum(a), surgery.agr_sum(b))

    @given(gradients(2), st.floats(1e-3, 1e3), st.integers(0, 4))
    def test_the_mask_does_not_depend_on_the_scale_of_an_environment(self, g, scale, which):
        scaled = g.clone()
        scaled[which % len(g)] *= scale
        assert torch.equal(surgery.sign_consensus(iter(g)).agree, surgery.sign_consensus(iter(scaled)).agree)

    @given(gradients())
    def test_streaming_equals_the_stacked_definition(self, g):
        consensus = surgery.sign_consensus(iter(g))
        stacked = g.sign().sum(0).abs() == len(g)
        assert torch.equal(consensus.agree, stacked)
        torch.testing.assert_close(surgery.agr_sum(consensus), torch.where(stacked, g.sum(0), 0))
        literal = surgery.sign_consensus(iter(g), zero_agrees=True).agree
        assert torch.equal(literal, (g.sign() == g[0].sign()).all(0))
        assert surgery.sign_agreement(list(g)) == consensus.agreement

    @given(gradients(2))
    def test_agr_sum_is_and_mask_times_k_times_the_share_of_survivors(self, g):
        """E.2's cross-test: AND-mask with tau = 1 (Parascandolo et al. 2020) divides by that share."""
        mask = (g.sign().mean(0).abs() >= 1).double()
        and_mask = mask * g.mean(0) / (mask.mean() + 1e-10)
        expected = len(g) * mask.mean() * and_mask
        torch.testing.assert_close(
            surgery.agr_sum(surgery.sign_consensus(iter(g))), expected, rtol=1e-6, atol=1e-6
        )

    @given(gradients())
    def test_where_all_agree_the_result_is_the_plain_sum(self, g):
        positive = g.abs() + 1
        consensus = surgery.sign_consensus(iter(positive))
        torch.testing.assert_close(surgery.agr_sum(consensus), positive.sum(0))
        torch.testing.assert_close(agr_rand(consensus)[0], positive.sum(0))
        orders = [[j for j in range(len(g)) if j != i] for i in range(len(g))]
        torch.testing.assert_close(pcgrad(positive, orders), positive.sum(0))

    @given(gradients(2, 2))
    def test_pcgrad_of_two_that_conflict(self, g):
        a, b = g
        if a @ b >= 0:
            b = -b
        if a @ b == 0:
            return
        expected = a + b - (a @ b) / (b @ b) * b - (a @ b) / (a @ a) * a
        result = pcgrad(torch.stack([a, b]), [[1], [0]])
        torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)

    @given(gradients(2), st.integers(0, 2**32), st.sampled_from(["independent", "shared", "fixed"]))
    @settings(max_examples=200)
    def test_pcgrad_on_the_gram_matrix_equals_the_explicit_algorithm(self, g, seed, order):
        orders = surgery.pcgrad_orders(len(g), np.random.default_rng(seed), order)
        assert all(sorted(each) == [j for j in range(len(g)) if j != i] for i, each in enumerate(orders))
        gram = surgery.gram_matrix(list(g)).numpy()
        scale = max(1.0, float(np.abs(gram).max()) ** 0.5)
        # A product that is 0 but for rounding may be seen as a conflict by one of the two only.
        torch.testing.assert_close(
            pcgrad(g, orders), explicit_pcgrad(g, orders), rtol=1e-6, atol=1e-6 * scale
        )

    @given(gradients(2))
    def test_cosine_streamed_from_the_gram_matrix_and_by_definition(self, g):
        pairs = [
            torch.nn.functional.cosine_similarity(a, b, dim=0, eps=1e-30).item()
            for a, b in itertools.combinations(g, 2)
        ]
        assert surgery.sign_consensus(iter(g)).cosine.item() == pytest.approx(np.mean(pairs), abs=1e-6)
        assert surgery.mean_cosine(surgery.gram_matrix(list(g)).numpy()) == pytest.approx(
            np.mean(pairs), abs=1e-6
        )


class TestNoise:
    def test_it_fills_the_conflicts_only_with_the_agreeing_components_scale(self):
        torch.manual_seed(0)
        g = torch.randn(3, 200_000, dtype=torch.float64)
        consensus = surgery.sign_consensus(iter(g))
        result, sigma = agr_rand(consensus)
        assert torch.equal(result[consensus.agree], consensus.total[consensus.agree])
        noise = result[~consensus.agree]
        assert noise.std().item() == pytest.approx(sigma, rel=0.01)
        assert noise.mean().item() == pytest.approx(0, abs=0.02 * sigma)
        assert consensus.agreement.item() == pytest.approx(2 ** (1 - 3), abs=0.005)

    def test_without_agreement_there_is_no_noise(self):
        g = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
        consensus = surgery.sign_consensus(iter(g))
        assert agr_rand(consensus)[0].tolist() == [0, 0]

    def test_each_tensor_may_have_a_sigma_of_its_own(self):
        kept = torch.tensor([2.0, 0.0, 4.0, 0.0, 0.0, 0.0, 6.0])
        sigma = surgery.agr_rand_sigma(kept, kept != 0, [3, 2, 2])
        assert sigma.tolist() == [3, 3, 3, 0, 0, 6, 6]


def test_visiting_itself_can_change_the_result():
    rng = np.random.default_rng(0)
    found = False
    for _ in range(2000):
        g = torch.from_numpy(rng.standard_normal((4, 3)))
        orders = [[*(j for j in range(4) if j != i), i] for i in range(4)]
        found = found or not torch.allclose(pcgrad(g, orders), pcgrad(g, [order[:-1] for order in orders]))
    assert found
    assert surgery.pcgrad_orders(3, rng, "fixed", include_self=True) == [[0, 1, 2]] * 3


def test_no_gradient_is_an_error():
    with pytest.raises(ValueError, match="at least one gradient"):
        surgery.sign_consensus(iter(()))
