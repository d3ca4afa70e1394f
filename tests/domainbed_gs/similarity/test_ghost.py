"""Ghost products against explicit per-sample gradients, one sample and one backward pass at a time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from domainbed.errors import UsageError
from domainbed.networks.small_cnn import SmallCNN
from domainbed_gs.similarity import ghost
from domainbed_gs.similarity.ghost import pairwise

SIZES = [3, 2, 2]


class Residual(nn.Module):
    """Changes the output of its normalisation in place, as torchvision's ResNet does."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        out = self.norm(self.conv(x))
        out += x
        return F.relu(out, inplace=True)


class NormWithActivation(nn.BatchNorm2d):
    """A batch norm that calls its activation, as those of timm's networks."""

    def __init__(self, channels):
        super().__init__(channels)
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x):
        return self.act(super().forward(x))


class Shift(nn.Module):
    """A layer of nobody's."""

    def __init__(self, size):
        super().__init__()
        self.shift = nn.Parameter(torch.randn(size))

    def forward(self, x):
        return x * self.shift.tanh() + self.shift[0]


def frozen(module, *names):
    for name in names:
        getattr(module, name).requires_grad_(False)
    return module


def networks():
    """Name -> network of inputs (3, 8, 8) with three classes."""
    flat = nn.Flatten
    return {
        "linear": lambda: nn.Sequential(flat(), nn.Linear(192, 3)),
        "mlp": lambda: nn.Sequential(flat(), nn.Linear(192, 7), nn.ReLU(True), nn.Linear(7, 3, bias=False)),
        "convolutions": lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=2, dilation=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 6, (3, 2), padding=(1, 0), groups=3),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 12, 3, groups=6, bias=False),
            flat(),
            nn.LazyLinear(3),
        ),
        "convolution to one position": lambda: nn.Sequential(
            nn.Conv2d(3, 6, 8, groups=3), flat(), nn.Linear(6, 3)
        ),
        "other paddings": lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, padding="same"),
            nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
            flat(),
            nn.Linear(256, 3),
        ),
        "1-d": lambda: nn.Sequential(
            flat(2), nn.Conv1d(3, 4, 5, stride=3), nn.Tanh(), flat(), nn.LazyLinear(3)
        ),
        "positions": lambda: nn.Sequential(
            flat(2), nn.Linear(64, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 4), flat(), nn.Linear(12, 3)
        ),
        "norms": lambda: nn.Sequential(
            NormWithActivation(3), Residual(3), nn.InstanceNorm2d(3, affine=True), flat(), nn.Linear(192, 3)
        ),
        "own": lambda: nn.Sequential(flat(), Shift(192), nn.Linear(192, 3)),
        "frozen": lambda: nn.Sequential(
            frozen(nn.Conv2d(3, 4, 3), "bias"),
            frozen(nn.Conv2d(4, 4, 3), "weight", "bias"),
            flat(),
            frozen(nn.Linear(64, 5), "weight"),
            nn.Linear(5, 3),
        ),
        "small_cnn": lambda: nn.Sequential(
            nn.Upsample(scale_factor=4), SmallCNN((3, 32, 32)), nn.Linear(128, 3)
        ),
        "dropout": lambda: nn.Sequential(flat(), nn.Dropout(0.5), nn.Linear(192, 3)),
    }


@pytest.fixture(params=networks())
def network(request, float64):
    torch.manual_seed(0)
    network = networks()[request.param]()
    network(torch.randn(2, 3, 8, 8))  # lazy layers learn their sizes
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.running_mean)
    return network.eval()


def samples():
    torch.manual_seed(1)
    return torch.randn(sum(SIZES), 3, 8, 8), torch.randint(0, 3, (sum(SIZES),))


def explicit(network, x, y):
    """Per-sample gradients (N, P)."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    rows = []
    for i in range(len(x)):
        loss = F.cross_entropy(network(x[i : i + 1]), y[i : i + 1])
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    return torch.stack(rows)


def check(found, gradients):
    torch.testing.assert_close(found.gram, gradients @ gradients.T, rtol=1e-11, atol=1e-13)
    signs = gradients.sign()
    equal = ((signs[:, None] == signs) & (signs != 0)).sum(2)
    assert torch.equal(found.equal, equal.double())
    means = torch.stack([part.mean(0) for part in gradients.split(SIZES)]).sign()
    assert found.consensus == ((means == means[0]).all(0) & (means[0] != 0)).sum()
    assert found.components == gradients.shape[1]


def test_equals_explicit_gradients(network):
    x, y = samples()
    check(pairwise(network, x, y, SIZES), explicit(network, x, y))


def test_equals_explicit_gradients_in_small_blocks(network, monkeypatch):
    monkeypatch.setattr(ghost, "BLOCK", 500)
    x, y = samples()
    check(pairwise(network, x, y, SIZES), explicit(network, x, y))


def test_float32_gives_the_same_to_rounding_and_leaves_the_network_alone():
    torch.manual_seed(0)
    network = networks()["convolutions"]()
    x, y = samples()
    network(x)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = pairwise(network, x, y, SIZES)
    gradients = explicit(network, x, y)
    torch.testing.assert_close(found.gram, (gradients @ gradients.T).double(), rtol=1e-4, atol=1e-5)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_a_unit_that_is_silent_agrees_with_nobody(float64):
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        network[1].bias[0] = -1e6  # its gradients, and those of its outgoing weights, are 0
    x, y = samples()
    found = pairwise(network, x, y, SIZES)
    assert found.equal.diagonal().max() <= found.components - 193 - 3
    check(found, explicit(network, x, y))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(192, 192)
        self.last = nn.Linear(192, 3)

    def forward(self, x):
        return self.last(self.layer(self.layer(x.flatten(1))))


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.other = nn.Linear(192, 3), nn.Linear(1, 1)

    def forward(self, x):
        return self.layer(x.flatten(1))


def tied():
    first, second = nn.Linear(192, 192), nn.Linear(192, 192)
    second.weight = first.weight
    return nn.Sequential(nn.Flatten(), first, second)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(192, 3)),
            "mixes the samples of a minibatch",
        ),
        (Twice, r"layer layer \(Linear\) is called twice"),
        (tied, "shares a parameter"),
        (Unused, "layer other has no part in the forward pass"),
    ],
)
def test_what_cannot_be_done_is_refused(network, message):
    with pytest.raises(UsageError, match=message):
        pairwise(network(), *samples(), SIZES)
