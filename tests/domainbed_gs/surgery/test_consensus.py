"""Golden vectors E.1 and invariants E.2 of the gradient surgery specification: where signs agree."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from domainbed_gs import surgery


def test_golden_agreement(example):
    consensus = surgery.sign_consensus(iter(example))
    assert consensus.agree.int().tolist() == [1, 0, 1, 0, 0, 0, 0, 0]
    assert consensus.agreement == 0.25


@given(st.data(), st.floats(1e-3, 1e3), st.integers(0, 4))
def test_the_mask_does_not_depend_on_the_scale_of_an_environment(gradients, data, scale, which):
    g = data.draw(gradients(2))
    scaled = g.clone()
    scaled[which % len(g)] *= scale
    assert torch.equal(surgery.sign_consensus(iter(g)).agree, surgery.sign_consensus(iter(scaled)).agree)


@given(st.data())
def test_streaming_equals_the_stacked_definition(gradients, data):
    g = data.draw(gradients())
    consensus = surgery.sign_consensus(iter(g))
    stacked = g.sign().sum(0).abs() == len(g)
    assert torch.equal(consensus.agree, stacked)
    torch.testing.assert_close(surgery.agr_sum(consensus), torch.where(stacked, g.sum(0), 0))
    literal = surgery.sign_consensus(iter(g), zero_agrees=True).agree
    assert torch.equal(literal, (g.sign() == g[0].sign()).all(0))
    assert surgery.sign_agreement(list(g)) == consensus.agreement


@given(st.data())
def test_cosine_streamed_from_the_gram_matrix_and_by_definition(gradients, data):
    g = data.draw(gradients(2))
    pairs = [
        torch.nn.functional.cosine_similarity(a, b, dim=0, eps=1e-30).item()
        for a, b in itertools.combinations(g, 2)
    ]
    assert surgery.sign_consensus(iter(g)).cosine.item() == pytest.approx(np.mean(pairs), abs=1e-6)
    of_gram = surgery.mean_cosine(surgery.gram_matrix(list(g)).numpy())
    assert of_gram == pytest.approx(np.mean(pairs), abs=1e-6)


def test_no_gradient_is_an_error():
    with pytest.raises(ValueError, match="at least one gradient"):
        surgery.sign_consensus(iter(()))
