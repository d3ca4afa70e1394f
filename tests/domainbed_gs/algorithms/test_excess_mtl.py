"""Golden vectors and invariants of ExcessMTL."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.usefixtures("float64")


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def test_golden(rule, field):
    """The authors' weights add up to K."""
    golden = field["excessmtl"]
    method = rule("ExcessMTL", excess_eta=1.0)
    for jacobian, expected in zip(golden["jacobians"], golden["official_eta1"], strict=True):
        weights = method.environment_weights(tensor(jacobian))
        torch.testing.assert_close(3 * weights, tensor(expected["weights"]), rtol=1e-12, atol=0)
        excess = method._excess(tensor(jacobian).square(), method.squares)
        torch.testing.assert_close(excess, tensor(expected["excess"]), rtol=1e-12, atol=0)


def test_golden_gradient_goes_to_adam(rule, field):
    """Of the second update."""
    golden = field["excessmtl"]
    method = rule("ExcessMTL", excess_eta=1.0)
    method.network = torch.nn.ParameterList([torch.ones(6)])
    method.loss_of = lambda x, y: x @ method.network[0]
    method.optimizer = method.new_optimizer()
    for jacobian in golden["jacobians"][:2]:
        returned = method.update([(row, row) for row in tensor(jacobian)])
    weights = tensor(golden["official_eta1"][1]["weights"]) / 3
    torch.testing.assert_close(method.network[0].grad, weights @ tensor(golden["jacobians"][1]))
    assert returned["largest_weight"] == pytest.approx(weights.max().item())


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(2, 5), st.permutations(range(5)))
def test_weights_add_up_to_1_and_know_no_order(rule, seed, k, order):
    draws = torch.Generator().manual_seed(seed)
    order = [i for i in order if i < k]
    one, other = rule("ExcessMTL", k=k, excess_eta=0.5), rule("ExcessMTL", k=k, excess_eta=0.5)
    for _ in range(3):
        g = torch.randn(k, 4, generator=draws)
        weights = one.environment_weights(g)
        torch.testing.assert_close(other.environment_weights(g[order]), weights[order])
        assert weights.sum().item() == pytest.approx(1)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_without_a_step_size_or_with_equal_environments_weights_stay_equal(rule, seed, k):
    draws = torch.Generator().manual_seed(seed)
    unchanged, equal = rule("ExcessMTL", k=k, excess_eta=0.0), rule("ExcessMTL", k=k, excess_eta=1.0)
    for _ in range(3):
        g, same = torch.randn(k, 4, generator=draws), torch.full((k,), 1 / k)
        torch.testing.assert_close(unchanged.environment_weights(g), same)
        torch.testing.assert_close(equal.environment_weights(g[:1].repeat(k, 1)), same)


def test_an_environment_whose_gradients_stay_large_gains_weight(rule, example):
    method = rule("ExcessMTL", excess_eta=0.1)
    factors = tensor([[1.0], [0.1], [0.1]])
    for step in range(4):
        weights = method.environment_weights(example if step == 0 else factors * example)
    assert weights[0] > weights[1:].max()


def test_with_the_classifier_alone_its_gradients_make_the_weights(make, minibatches, gradients_of):
    whole, last = (make("ExcessMTL", excess_of=of, excess_eta=1.0) for of in ("all", "classifier"))
    size = sum(parameter.numel() for parameter in last.classifier.parameters())
    g = gradients_of(last, minibatches())
    for method in (whole, last):
        method.update(minibatches())
    torch.testing.assert_close(last.squares, g[:, -size:].square())
    torch.testing.assert_close(whole.squares, g.square())


def test_a_resumed_run_equals_one_that_was_not_interrupted(make, minibatches, weights_of):
    straight = make("ExcessMTL", excess_eta=1.0)
    first, second = make("ExcessMTL", excess_eta=1.0), make("ExcessMTL", seed=9, excess_eta=1.0)
    for seed in range(4):
        straight.update(minibatches(seed=seed))
        (first if seed < 2 else second).update(minibatches(seed=seed))
        if seed == 1:
            second.load_training_state(first.training_state())
    assert torch.equal(weights_of(second), weights_of(straight))
    assert torch.equal(second.log_weights, straight.log_weights)
    assert second.log_weights.std() > 0
