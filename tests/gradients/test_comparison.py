"""Agreement in sign, cosines, and the share that combining removes, against their definitions."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from domainbed.gradients.comparison import (
    Combined,
    agreement_by_chance,
    any_is_zero,
    mean_cosine,
    signs_agree,
)

EXAMPLE = torch.tensor(
    [[3, -4, -1, 0, -2, 0, -2, 3], [1, 1, -2, 0, -1, 3, 1, -3], [2, 0, -1, 0, 4, -3, 2, -2]],
    dtype=torch.float64,
)


def stacks(min_k=1, max_k=5):
    """K gradients (K, P) with zeros, ties, and scales from 1e-3 to 1e3."""
    values = st.one_of(
        st.integers(-3, 3).map(float), st.floats(-1e3, 1e3).filter(lambda v: v == 0 or abs(v) > 1e-3)
    )
    shapes = st.tuples(st.integers(min_k, max_k), st.integers(1, 12))
    return shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=values)).map(torch.from_numpy)


def combined_of(stack, gradient):
    """`Combined` of gradients (K, P) and what a rule made of them (P,)."""
    agreeing, zeros = signs_agree(list(stack)).sum(), any_is_zero(list(stack)).sum()
    return Combined(gradient, stack @ stack.T, agreeing, zeros, gradient.norm())


class TestSignsAgree:
    def test_golden_agreement(self):
        assert signs_agree(list(EXAMPLE)).int().tolist() == [1, 0, 1, 0, 0, 0, 0, 0]
        assert combined_of(EXAMPLE, EXAMPLE.sum(0)).agreement == 0.25

    @settings(deadline=None)
    @given(stacks())
    def test_it_equals_its_definition(self, stack):
        """As in the authors' code, a component that is 0 in every environment does not agree."""
        for dtype in (torch.float32, torch.float64):
            rows = stack.to(dtype)
            expected = (rows.sign().sum(0).abs() == len(stack)).to(dtype)
            torch.testing.assert_close(signs_agree(list(rows)), expected, rtol=0, atol=0)

    @settings(deadline=None)
    @given(stacks(), st.randoms())
    def test_the_order_of_environments_does_not_matter(self, stack, random):
        order = list(range(len(stack)))
        random.shuffle(order)
        assert torch.equal(signs_agree(list(stack[order])), signs_agree(list(stack)))

    @settings(deadline=None)
    @given(stacks(2), st.floats(1e-3, 1e3), st.integers(0, 4))
    def test_the_scale_of_an_environment_does_not_matter(self, stack, scale, which):
        scaled = stack.clone()
        scaled[which % len(stack)] *= scale
        assert torch.equal(signs_agree(list(scaled)), signs_agree(list(stack)))

    def test_tiny_gradients_count(self):
        stack = torch.tensor([[1e-40, 1e-40, -1e-30], [1e-30, -1e-40, -1e-40]])
        assert signs_agree(list(stack)).tolist() == [True, False, True]

    def test_signed_zeros_infinity_and_nan(self):
        inf, nan = torch.inf, torch.nan
        a = torch.tensor([0.0, -0.0, 0.0, 0.0, inf, inf, -inf, nan, 1.0])
        b = torch.tensor([0.0, -0.0, -0.0, -1.0, 1.0, -inf, -1.0, 1.0, nan])
        expected = [False, False, False, False, True, False, True, False, False]
        assert signs_agree([a, b]).tolist() == expected
        assert signs_agree([b, a]).tolist() == expected

    def test_one_environment_agrees_with_itself_where_it_is_not_0(self):
        assert signs_agree([torch.tensor([2.0, 0.0, -3.0])]).tolist() == [True, False, True]

    def test_random_signs_agree_with_probability_2_to_the_1_minus_k(self):
        torch.manual_seed(0)
        for k in (2, 3, 5):
            stack = torch.randn(k, 100_000)
            assert combined_of(stack, stack.sum(0)).agreement.item() == pytest.approx(2 ** (1 - k), abs=0.01)


class TestZeros:
    @settings(deadline=None)
    @given(stacks())
    def test_components_that_are_0_in_an_environment(self, stack):
        for dtype in (torch.float32, torch.float64):
            rows = stack.to(dtype)
            expected = (rows == 0).any(0).to(dtype)
            torch.testing.assert_close(any_is_zero(list(rows)), expected, rtol=0, atol=0)

    @settings(deadline=None)
    @given(stacks())
    def test_a_component_that_agrees_is_not_0_anywhere(self, stack):
        assert (signs_agree(list(stack)) * any_is_zero(list(stack)) == 0).all()

    def test_random_signs_with_zeros_agree_as_chance_says(self):
        torch.manual_seed(0)
        for k in (2, 3, 5):
            stack = torch.randn(k, 100_000)
            stack[0, :20_000] = stack[-1, 10_000:30_000] = 0
            found = combined_of(stack, stack.sum(0))
            assert found.zero_share.item() == pytest.approx(0.3)
            assert found.agreement.item() == pytest.approx(agreement_by_chance(k, 0.3), abs=0.01)


class TestMeanCosine:
    @settings(deadline=None)
    @given(stacks(2))
    def test_it_equals_the_mean_over_pairs_of_gradients(self, stack):
        pairs = [
            torch.nn.functional.cosine_similarity(a, b, dim=0, eps=1e-30).item()
            for a, b in itertools.combinations(stack, 2)
        ]
        assert mean_cosine(stack @ stack.T).item() == pytest.approx(np.mean(pairs), abs=1e-6)
        assert combined_of(stack, stack.sum(0)).cosine == mean_cosine(stack @ stack.T)

    def test_a_gradient_of_zero_counts_as_0(self):
        assert mean_cosine(torch.diag(torch.tensor([4.0, 0.0]))) == 0
        gram = torch.tensor([[4.0, 4.0, 0.0], [4.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
        assert mean_cosine(gram).item() == pytest.approx(1 / 3)

    def test_one_environment_has_no_pair(self):
        assert mean_cosine(torch.tensor([[4.0]])).isnan()

    def test_the_inner_products_are_not_changed(self):
        gram = EXAMPLE @ EXAMPLE.T
        before = gram.clone()
        mean_cosine(gram)
        assert torch.equal(gram, before)


class TestRemoved:
    @settings(deadline=None)
    @given(stacks(), st.integers(0, 2**32))
    def test_it_compares_norms_with_the_sums(self, stack, seed):
        gradient = torch.from_numpy(np.random.default_rng(seed).standard_normal(stack.shape[1]))
        total = stack.sum(0).norm().item()
        # Sums that nearly cancel have no exact norm from inner products.
        if total > 1e-3 * stack.norm().item():
            found = combined_of(stack, gradient).removed(3.0).item()
            assert found == pytest.approx(1 - 3 * gradient.norm().item() / total, rel=1e-6, abs=1e-6)

    def test_the_plain_sum_and_the_mean_times_k_remove_nothing(self):
        total = EXAMPLE.sum(0)
        assert combined_of(EXAMPLE, total).removed(1).item() == pytest.approx(0, abs=1e-12)
        assert combined_of(EXAMPLE, total / 3).removed(3).item() == pytest.approx(0, abs=1e-12)

    def test_gradients_of_zero_give_a_finite_number(self):
        assert combined_of(torch.zeros(2, 3), torch.zeros(3)).removed(1) == 1


def test_the_number_of_environments_is_that_of_the_inner_products():
    assert combined_of(EXAMPLE, EXAMPLE.sum(0)).num_environments == 3
