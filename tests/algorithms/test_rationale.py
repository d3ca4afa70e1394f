"""RIDG: golden updates, its penalty against the definition, and what it refuses."""

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from domainbed.algorithms import rationale
from domainbed.algorithms.rationale import RIDG
from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams

pytestmark = pytest.mark.usefixtures("float64")


def make(num_classes=3, width=3, **overrides):
    hparams = default_hparams("RIDG", "Debug28") | {"featurizer": "mlp", "mlp_width": width} | overrides
    torch.manual_seed(0)
    return RIDG((4,), num_classes, 2, hparams)


def linear(algorithm, weights):
    """Replace the featurizer by a linear layer, and set all weights to those of the golden vectors."""
    algorithm.featurizer = nn.Linear(4, 3)
    algorithm.network = nn.Sequential(algorithm.featurizer, algorithm.classifier)
    for parameter, name in zip(
        algorithm.network.parameters(), ("feat_w", "feat_b", "cls_w", "cls_b"), strict=True
    ):
        parameter.data = torch.tensor(weights[name])
    algorithm.optimizer = algorithm.new_optimizer()


def test_golden_updates(vectors):
    golden = vectors("field_networks")["ridg"]
    algorithm = make(
        ridg_reg=golden["hparams"]["ridg_reg"], ridg_momentum=golden["hparams"]["momentum"], lr=0.01
    )
    linear(algorithm, golden["init"])
    for minibatches, expected in zip(golden["batches"], golden["steps"], strict=True):
        returned = algorithm.update(
            [(torch.tensor(each["x"]), torch.tensor(each["y"])) for each in minibatches]
        )
        assert returned["loss"] == pytest.approx(expected["loss"], rel=1e-9)
        assert returned["penalty"] == pytest.approx(expected["rationale_loss"], rel=1e-9)
        np.testing.assert_allclose(algorithm.means, expected["bank"], atol=1e-10)
        for parameter, name in zip(algorithm.network.parameters(), expected["after"], strict=True):
            np.testing.assert_allclose(parameter.grad, expected["grad"][name], atol=1e-9)
            np.testing.assert_allclose(parameter.detach(), expected["after"][name], atol=1e-9)


def penalty_by_definition(algorithm, z, y):
    """The penalty and the new means, from the rationales of all samples."""
    rationales = algorithm.classifier.weight * z[:, None]
    share, total, means = algorithm.hparams["ridg_momentum"], 0.0, algorithm.means.clone()
    for c in y.unique():
        of_class = rationales[y == c]
        mean = of_class.detach().mean(0)
        means[c] = (1 - share) * means[c] + share * mean if algorithm.seen[c] else mean
        total = total + (of_class - means[c]).square().sum(2).mean()
    return total, means


@settings(max_examples=40)
@given(st.integers(2, 5), st.integers(1, 6), st.integers(1, 12), st.integers(0, 2**32), st.floats(0, 1))
def test_the_penalty_is_that_of_the_definition(classes, width, n, seed, momentum):
    algorithm = make(classes, width, ridg_momentum=momentum)
    torch.manual_seed(seed)
    for _ in range(3):  # a class may be seen first in the second or third batch, and be absent later
        z, y = torch.randn(n, width).requires_grad_(), torch.randint(classes, (n,))
        expected, means = penalty_by_definition(algorithm, z, y)
        found = algorithm._penalty(z, y)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(algorithm.means, means)
        gradients = [
            torch.autograd.grad(value, [z, algorithm.classifier.weight]) for value in (found, expected)
        ]
        torch.testing.assert_close(*gradients)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(0, 2), st.integers(1, 5))
def test_equal_samples_of_a_class_seen_first_have_no_penalty_and_their_rationale_sums_to_logits(seed, c, n):
    algorithm = make()
    torch.manual_seed(seed)
    z = torch.randn(1, 3)
    assert algorithm._penalty(z.repeat(n, 1), torch.full((n,), c)).item() == pytest.approx(0, abs=1e-12)
    without_bias = (algorithm.classifier(z) - algorithm.classifier.bias)[0]
    torch.testing.assert_close(algorithm.means[c].sum(1), without_bias)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 8))
def test_with_a_momentum_of_1_means_are_the_batchs_and_the_penalty_its_scatter(seed, n):
    algorithm = make(ridg_momentum=1.0)
    torch.manual_seed(seed)
    for _ in range(2):
        z, y = torch.randn(n, 3), torch.randint(3, (n,))
        found, scatter = algorithm._penalty(z, y), 0.0
        for c in y.unique():
            rationales = (algorithm.classifier.weight * z[:, None])[y == c].detach()
            torch.testing.assert_close(algorithm.means[c], rationales.mean(0))
            scatter += rationales.var(0, correction=0).sum() / 3
        torch.testing.assert_close(found, scatter)


@settings(max_examples=10)
@given(st.integers(0, 2**32))
def test_samples_and_environments_can_come_in_any_order(seed):
    torch.manual_seed(seed)
    batches = [
        (torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0])),
        (torch.randn(3, 4), torch.tensor([2, 2, 0])),
    ]
    order = torch.randperm(5)
    other = [batches[1], tuple(part[order] for part in batches[0])]
    first, second = make(ridg_reg=0.1), make(ridg_reg=0.1)
    assert first.update(batches)["penalty"] == pytest.approx(second.update(other)["penalty"], rel=1e-9)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@settings(max_examples=10)
@given(st.integers(0, 2**32))
def test_without_a_weight_it_is_erm(seed):
    algorithm = make(ridg_reg=0.0)
    torch.manual_seed(seed)
    x, y = torch.randn(6, 4), torch.randint(3, (6,))
    expected = torch.autograd.grad(F.cross_entropy(algorithm.predict(x), y), list(algorithm.parameters()))
    algorithm.update([(x, y)])
    for parameter, gradient in zip(algorithm.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_nonlinear_classifier_is_refused():
    with pytest.raises(UsageError, match="RIDG needs a linear classifier"):
        make(nonlinear_classifier=True)


def test_means_that_need_much_memory_are_announced(caplog, monkeypatch):
    monkeypatch.setattr(rationale, "_LARGE", 50**2 * 4)
    with caplog.at_level(logging.WARNING):
        make(num_classes=49, width=4)
        assert not caplog.text
        make(num_classes=50, width=4)
    assert "50^2 x 4 values for the means of its classes, 4e-05 GB" in caplog.text
