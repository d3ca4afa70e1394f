"""Golden vectors E.1 and invariants E.2 of the gradient surgery specification: Agr-Sum and Agr-Rand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from domainbed_gs import surgery


def agr_sum(g):
    return surgery.agr_sum(surgery.sign_consensus(iter(g)))


def agr_rand(consensus):
    """The combined gradient with noise from seed 0, and its sigma."""
    kept = surgery.agr_sum(consensus)
    sigma = sigma_of(kept, consensus.agree)
    return surgery.agr_rand(kept, consensus.agree, sigma, seed=0), sigma.item()


def sigma_of(kept, agree):
    return surgery.agr_rand_sigma(surgery.magnitudes(kept, agree, [len(kept)]).sum(0))


class TestGolden:
    def test_agr_sum(self, example):
        assert agr_sum(example).tolist() == [6, 0, -4, 0, 0, 0, 0, 0]

    @pytest.mark.parametrize(("zero_agrees", "sigma"), [(False, 5.0), (True, 10 / 3)])
    def test_agr_rand_sigma(self, example, zero_agrees, sigma):
        consensus = surgery.sign_consensus(iter(example), zero_agrees)
        found = sigma_of(surgery.agr_sum(consensus), consensus.agree).item()
        assert found == pytest.approx(sigma, abs=1e-6)


class TestInvariants:
    @given(st.data(), st.integers(1, 5))
    def test_identical_gradients_give_k_times_it(self, gradients, data, k):
        g = data.draw(gradients(1, 1))
        torch.testing.assert_close(agr_sum(g.repeat(k, 1)), k * g[0])

    @given(st.data(), st.randoms())
    def test_agr_sum_does_not_depend_on_the_order_of_environments(self, gradients, data, random):
        g = data.draw(gradients(2))
        permuted = list(g)
        random.shuffle(permuted)
        a, b = surgery.sign_consensus(iter(g)), surgery.sign_consensus(iter(permuted))
        assert torch.equal(a.agree, b.agree)
        torch.testing.assert_close(surgery.agr_sum(a), surgery.agr_sum(b))

    @given(st.data())
    def test_agr_sum_is_and_mask_times_k_times_the_share_of_survivors(self, gradients, data):
        """E.2's cross-test: AND-mask with tau = 1 (Parascandolo et al. 2020) divides by that share."""
        g = data.draw(gradients(2))
        mask = (g.sign().mean(0).abs() >= 1).double()
        and_mask = mask * g.mean(0) / (mask.mean() + 1e-10)
        expected = len(g) * mask.mean() * and_mask
        torch.testing.assert_close(agr_sum(g), expected, rtol=1e-6, atol=1e-6)

    @given(st.data())
    def test_where_all_agree_the_result_is_the_plain_sum(self, gradients, data):
        positive = data.draw(gradients()).abs() + 1
        consensus = surgery.sign_consensus(iter(positive))
        torch.testing.assert_close(surgery.agr_sum(consensus), positive.sum(0))
        torch.testing.assert_close(agr_rand(consensus)[0], positive.sum(0))


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
        sigma = surgery.agr_rand_sigma(surgery.magnitudes(kept, kept != 0, [3, 2, 2]))
        assert sigma.tolist() == [3, 0, 6]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_what_is_not_zero_agrees_if_nothing_else_is_said(self, dtype):
        kept = torch.tensor([1.0, 0.0, -0.0, torch.finfo(dtype).smallest_normal / 4, -2.0], dtype=dtype)
        found = surgery.agr_rand(kept.clone(), None, torch.tensor(3.0), seed=1)
        expected = surgery.agr_rand(kept.clone(), kept != 0, torch.tensor(3.0), seed=1)
        assert torch.equal(found, expected)
        assert found[[1, 2]].all()


class TestAgreeingSum:
    @given(st.data(), st.booleans())
    def test_it_is_agr_sum_of_the_consensus_bit_for_bit(self, gradients, data, single):
        g = data.draw(gradients())
        g = g.float() if single else g
        assert torch.equal(surgery.agreeing_sum(g.unbind()), agr_sum(g))

    def test_tiny_gradients_count(self):
        g = torch.tensor([[1e-40, 1e-40, -1e-30], [1e-30, -1e-40, -1e-40]])
        assert torch.equal(surgery.agreeing_sum(g.unbind()), agr_sum(g))
        assert (surgery.agreeing_sum(g.unbind()) != 0).tolist() == [True, False, True]
