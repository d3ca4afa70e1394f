import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from domainbed_gs import surgery


def test_golden_inner_products(example, gram):
    assert np.array_equal(surgery.gram_matrix(list(example)).numpy(), gram)


@given(st.data())
def test_the_norm_of_a_combination_is_that_of_the_combined_gradient(gradients, data):
    g = data.draw(gradients())
    weights = np.linspace(-1, 2, len(g))
    norm = surgery.combine(list(g), weights).norm().item()
    found = surgery.norm_of(surgery.gram_matrix(list(g)).numpy(), weights)
    assert abs(found - norm) <= 1e-6 * g.abs().sum().item()


def test_float32_gradients_of_many_components_lose_nothing():
    """A float32 accumulator would miss what is 1e-8 of the sum; the parts are 2^20 long."""
    g = torch.ones(2**20 + 3)
    g[-1] = 3.0
    assert surgery.gram_matrix([g, g]).tolist() == [[2**20 + 2 + 9] * 2] * 2
