"""A rule applied piece by piece gives what it gives on whole gradients."""

import pytest
import torch

from domainbed.gradients.componentwise import Componentwise
from domainbed.gradients.gram import NoDirection, combine_by_weights
from domainbed.gradients.pieces import Piece, Rows, Span
from domainbed.process_group import SINGLE_PROCESS

K, P = 3, 50


@pytest.fixture
def gradients(float64):
    torch.manual_seed(0)
    values = torch.randn(K, P)
    values[0, ::7] = values[1, ::5] = 0
    return values


def pieces(gradients):
    """A piece of two spans with a gap between them, and the two pieces that fill it and follow."""
    spans = [[Span(0, 10), Span(30, 45)], [Span(10, 30)], [Span(45, 50)]]
    for each in spans:
        yield Piece(each, Rows([torch.cat([row[s.start : s.stop] for s in each]) for row in gradients]))


@pytest.fixture(params=[6, 2**20])
def block_size(request, monkeypatch):
    monkeypatch.setattr("domainbed.gradients.pieces._BLOCK", request.param)


def combined(gradients, rule, scale=1.0, draws=None):
    out = torch.full((P,), torch.nan)
    return Componentwise(rule, scale, out, draws, compile_rule=False).combine(
        pieces(gradients), SINGLE_PROCESS
    )


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_gradient_and_measures_are_those_of_the_whole(gradients, block_size, scale):
    found = combined(gradients, lambda block: block[0] - 2 * block[1], scale)
    expected = scale * (gradients[0] - 2 * gradients[1])
    torch.testing.assert_close(found.gradient, expected)
    torch.testing.assert_close(found.gram, gradients @ gradients.T)
    assert found.agreeing == (gradients.sign().sum(0).abs() == K).sum()
    assert found.zeros == (gradients == 0).any(0).sum() > 0
    assert found.norm == pytest.approx(expected.norm().item())
    assert found.magnitude == pytest.approx(expected.abs().sum().item())
    assert found.weights is None
    assert found.num_environments == K


def test_weights_of_the_components_are_kept_in_their_order(gradients, block_size):
    found = combined(gradients, lambda block: (block[0] * block[1].sigmoid(), block[1].sigmoid()))
    torch.testing.assert_close(found.weights, gradients[1].sigmoid())
    torch.testing.assert_close(found.gradient, gradients[0] * gradients[1].sigmoid())


def test_draws_belong_to_the_components(gradients, block_size):
    draws = torch.rand(P)
    found = combined(gradients, lambda block: block[0] + block.uniform(), draws=draws)
    torch.testing.assert_close(found.gradient, gradients[0] + draws)


def by_weights(gradients, rule, fallback=1 / K, scale=1.0):
    out = torch.full((P,), torch.nan)
    return combine_by_weights(
        pieces(gradients), rule, fallback, scale, out, compile_count=False, group=SINGLE_PROCESS
    )


def test_a_gram_rule_gives_the_weighted_sum(gradients, block_size):
    seen = []
    weights = torch.tensor([0.5, -1.0, 2.0])

    def rule(gram):
        seen.append(gram)
        return weights.numpy()

    found = by_weights(gradients, rule, scale=3.0)
    torch.testing.assert_close(torch.from_numpy(seen[0]), gradients @ gradients.T)
    torch.testing.assert_close(found.gradient, 3 * weights @ gradients)
    assert found.norm == pytest.approx(found.gradient.norm().item())
    assert found.agreeing == (gradients.sign().sum(0).abs() == K).sum()
    assert found.zeros == (gradients == 0).any(0).sum() > 0
    assert not found.fallback
    assert weights.tolist() == [0.5, -1.0, 2.0]


def test_the_mean_stands_in_where_a_rule_defines_no_direction(gradients):
    def rule(gram):
        raise NoDirection

    found = by_weights(gradients, rule)
    torch.testing.assert_close(found.gradient, gradients.mean(0))
    assert found.fallback


def test_a_rule_is_not_asked_about_gradients_that_are_not_finite(gradients):
    gradients[1, 3] = torch.inf
    found = by_weights(gradients, lambda gram: pytest.fail("the rule was asked"))
    assert found.fallback
