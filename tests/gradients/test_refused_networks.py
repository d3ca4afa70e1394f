"""Networks whose gradients a joint pass cannot separate are refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from domainbed.errors import UsageError
from domainbed.gradients.passes import joint_pass
from domainbed.gradients.recording import NotSeparable

SEEDS = [11, 5, 11]


def minibatches():
    return [(torch.randn(n, 3), torch.randint(3, (n,))) for n in (4, 1, 3)]


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(self.layer(x).relu())


class Functional(nn.Module):
    """Uses its layer's weight without calling the layer, or beside calling it."""

    def __init__(self, calls_it):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.calls_it = calls_it

    def forward(self, x):
        return F.linear(self.layer(x) if self.calls_it else x, self.layer.weight)


class Raw(nn.Module):
    """Has a parameter beside those of its submodule."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(x) * self.scale


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Bilinear(3, 3, 3)

    def forward(self, x):
        return self.layer(x, x)


def tied():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    return network


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Twice(), "is called twice"),
        (Functional(calls_it=False), "has no part in the forward pass"),
        (Functional(calls_it=True), "is used outside of its layer"),
        (Raw(), "has parameters beside those of its submodules"),
        (TwoInputs(), "does not map one tensor to one tensor"),
        (tied(), "shares a parameter"),
        (nn.BatchNorm1d(3), "mixes the samples"),
        (nn.BatchNorm1d(3, affine=False), "mixes the samples"),
        (nn.BatchNorm1d(3, track_running_stats=False).eval(), "mixes the samples"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_networks_whose_gradients_are_not_separable_are_refused(network, reason):
    network = nn.Sequential(nn.Linear(3, 3), network)
    with pytest.raises(NotSeparable, match=reason):
        joint_pass(network, minibatches(), list(network.parameters()), SEEDS, check=True)
    assert not any(module._forward_hooks for module in network.modules())


class NormWithDropout(nn.BatchNorm1d):
    def __init__(self, size):
        super().__init__(size)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(super().forward(x))


def test_a_batch_norm_whose_submodule_may_draw_random_numbers_is_refused():
    norm = NormWithDropout(3).eval()
    norm.dropout.train()
    network = nn.Sequential(nn.Linear(3, 3), norm)
    with pytest.raises(NotSeparable, match="has parameters beside those of its submodules"):
        joint_pass(network, minibatches(), list(network.parameters()), SEEDS, check=True)


def test_a_users_parameter_for_two_layers_is_no_error_of_the_user():
    with pytest.raises(NotSeparable) as raised:
        joint_pass(Twice(), minibatches(), [], SEEDS, check=False)
    assert not isinstance(raised.value, UsageError)
