"""Golden vectors and invariants of FAMO."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.usefixtures("float64")

PAIRS = st.lists(st.tuples(st.floats(0.01, 10), st.floats(0.01, 10)), min_size=2, max_size=5)
"""Losses before and after the network's step."""


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    "name",
    [
        "adam_lr0.025_gamma0.001",
        "adam_lr0.025_gamma0.01_min_losses",
        "plain_gradient_beta0.025_gamma0.001_as_in_the_paper",
    ],
)
def test_golden(rule, field, name):
    case, optimizer = field["famo"][name], name.partition("_")[0]
    method = rule("FAMO", famo_lr=case["lr"], famo_gamma=case["gamma"], famo_optimizer=optimizer)
    method.hparams["famo_min_loss"] = tensor(case["min_losses"])
    for step in case["steps"]:
        torch.testing.assert_close(method.logits.softmax(0), tensor(step["z"]), rtol=1e-10, atol=0)
        value, weights = method.weighted(tensor(step["losses"]))
        torch.testing.assert_close(weights, tensor(step["loss_weights"]), rtol=1e-10, atol=0)
        assert value.item() == pytest.approx(step["scalar_loss"], rel=1e-10)
        method.learn(tensor(step["losses"]), tensor(step["losses_after_step"]))
        slope = tensor(step["logit_grad_without_decay"])
        torch.testing.assert_close(method.logits.grad, slope, rtol=1e-8, atol=1e-14)
        expected = tensor(step["logits_after"])
        torch.testing.assert_close(method.logits.detach(), expected, rtol=1e-9, atol=1e-12)


@settings(max_examples=30)
@given(PAIRS)
def test_weights_add_up_to_1_and_are_first_those_of_the_inverse_losses(rule, pairs):
    before, after = (tensor(values) for values in zip(*pairs, strict=True))
    method = rule("FAMO", k=len(pairs))
    first = method.weighted(before)[1]
    torch.testing.assert_close(first, (1 / before) / (1 / before).sum(), rtol=1e-5, atol=0)
    method.learn(before, after)
    assert method.weighted(after)[1].sum().item() == pytest.approx(1)


@settings(max_examples=30)
@given(PAIRS)
def test_the_environment_that_improved_more_than_the_mean_loses_weight(rule, pairs):
    before, after = (tensor(values) for values in zip(*pairs, strict=True))
    method = rule("FAMO", k=len(pairs), famo_gamma=0.0, famo_optimizer="plain")
    method.learn(before, after)
    improvement = (before / after).log()
    relative = improvement - improvement.mean()
    clear = relative.abs() > 1e-6
    assert (method.logits.detach().sign() == -relative.sign())[clear].all()
    assert method.logits.sum().item() == pytest.approx(0, abs=1e-12)


@settings(max_examples=30)
@given(st.lists(st.floats(0.01, 10), min_size=2, max_size=5), st.floats(0.5, 2))
def test_equal_relative_improvements_change_nothing(rule, losses, factor):
    method = rule("FAMO", k=len(losses), famo_optimizer="plain")
    method.learn(tensor(losses), factor * tensor(losses))
    torch.testing.assert_close(method.logits.grad, torch.zeros(len(losses)), rtol=0, atol=1e-5)


@settings(max_examples=20)
@given(PAIRS, st.floats(1, 50))
def test_the_scale_of_one_loss_does_not_matter_to_the_logits(rule, pairs, factor):
    before, after = (tensor(values) for values in zip(*pairs, strict=True))
    scale = torch.ones(len(pairs))
    scale[1] = factor
    plain, scaled = (rule("FAMO", k=len(pairs), famo_optimizer="plain") for _ in range(2))
    for step in range(3):
        plain.learn(before, after / (1 + step))
        scaled.learn(before * scale, after * scale / (1 + step))
    torch.testing.assert_close(plain.logits, scaled.logits, rtol=0, atol=1e-6)


def test_without_a_step_nothing_changes_if_the_second_pass_has_the_masks_of_the_first(make, minibatches):
    """Losses before and after are then equal to the bit, whatever the dropout."""
    changes = {}
    for passes in ("same", "fresh"):
        method = make("FAMO", featurizer="mlp", mlp_dropout=0.5, famo_second_pass=passes)
        method.optimizer = torch.optim.SGD(method.network.parameters(), lr=0.0)
        method.update(minibatches())
        changes[passes] = method.logits.grad.abs().max().item()
    assert changes["same"] == 0
    assert changes["fresh"] > 1e-4


@pytest.mark.parametrize(("passes", "expected"), [("same", 1), ("fresh", 2)])
def test_the_second_pass_leaves_the_statistics_of_batch_norms_alone(make, minibatches, passes, expected):
    method = make("FAMO", featurizer="wide_resnet", famo_second_pass=passes)
    method.update(minibatches(n=2))
    counts = {int(v) for name, v in method.network.named_buffers() if name.endswith("num_batches_tracked")}
    assert counts == {expected}


def test_the_logits_learn_from_the_losses_after_the_step(make, minibatches):
    method = make("FAMO", famo_optimizer="plain", famo_gamma=0.0)
    batches = minibatches()

    def losses():
        return torch.stack([torch.nn.functional.cross_entropy(method.predict(x), y) for x, y in batches])

    before = losses().detach()
    returned = method.update(batches)
    delta = (before / losses().detach()).log()
    torch.testing.assert_close(method.logits.grad, (delta - delta.mean()) / 3, rtol=1e-5, atol=1e-9)
    assert returned["loss"] == pytest.approx(before.mean().item())
