"""The closed form against the gradients of single samples, made by autograd one at a time."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from domainbed.errors import UsageError
from domainbed.gradients.variance import logits_and_passes, require_linear_layers, variances_by_environment
from domainbed.networks import Classifier

SIZES = (7, 4, 1)


def problem(nonlinear, features=12, classes=3, sizes=SIZES):
    torch.manual_seed(0)
    head = Classifier(features, classes, nonlinear)
    x = torch.randn(sum(sizes), features, requires_grad=True)
    return head, x, torch.randint(classes, (sum(sizes),))


def explicit(head, x, y):
    """Name -> biased variance over the samples of the gradient of each one's own loss, differentiable."""
    names, parameters = zip(*head.named_parameters(), strict=True)
    samples = [
        torch.autograd.grad(F.cross_entropy(head(a[None]), b[None]), parameters, create_graph=True)
        for a, b in zip(x, y, strict=True)
    ]
    stacked = [torch.stack(parts) for parts in zip(*samples, strict=True)]
    return {name: parts.var(0, unbiased=False) for name, parts in zip(names, stacked, strict=True)}


def closed(head, x, y, sizes):
    """For each environment, the same by the closed form."""
    _, passes = logits_and_passes(head, x, y, differentiable=True)
    return variances_by_environment(passes, sizes)


@pytest.mark.parametrize("nonlinear", [False, True])
def test_variances_and_their_derivatives_equal_the_explicit_ones(nonlinear, float64):
    head, x, y = problem(nonlinear)
    found = closed(head, x, y, SIZES)
    expected = [explicit(head, a, b) for a, b in zip(x.split(SIZES), y.split(SIZES), strict=True)]
    leaves = [x, *head.parameters()]
    derivatives = []
    for variances in (found, expected):
        total = sum((e + 1) * own[name].square().sum() for e, own in enumerate(variances) for name in own)
        derivatives.append(torch.autograd.grad(total, leaves, retain_graph=True))
    for own, other in zip(found, expected, strict=True):
        assert own.keys() == other.keys()
        for name in own:
            torch.testing.assert_close(own[name], other[name], rtol=1e-10, atol=1e-14)
    for own, other in zip(*derivatives, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-14)


def test_a_layer_without_bias(float64):
    _, x, y = problem(False)
    head = nn.Linear(12, 3, bias=False)
    (found,) = closed(head, x, y, [len(y)])
    assert list(found) == ["weight"]
    torch.testing.assert_close(found["weight"], explicit(head, x, y)["weight"])


@pytest.mark.parametrize("nonlinear", [False, True])
def test_the_logits_can_be_trained_whether_or_not_the_variances_can(nonlinear):
    head, x, y = problem(nonlinear)
    for differentiable in (False, True):
        logits, passes = logits_and_passes(head, x, y, differentiable)
        assert torch.equal(logits, head(x))
        (found,) = variances_by_environment(passes, [len(y)])
        variances = list(found.values())
        assert all(value.requires_grad is differentiable for value in variances)
        F.cross_entropy(logits, y).backward()
    assert not any(layer._forward_hooks for layer in head.modules())


def test_no_tensor_of_all_samples_gradients_is_kept():
    n, features, classes = 64, 48, 10
    head, x, y = problem(False, features, classes, (n,))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        sum(value.sum() for value in closed(head, x, y, (n,))[0].values()).backward()
    assert max(saved) <= n * features
    assert max(saved) < n * features * classes / 5


def test_a_head_with_other_parameters_is_refused_in_one_line():
    head = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    with pytest.raises(UsageError, match="linear layers only, not for BatchNorm1d") as raised:
        require_linear_layers(head)
    assert "\n" not in str(raised.value)
    require_linear_layers(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)))
