"""Losses on fixed samples: values, gradients and Hessian-vector products against dense autograd."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from domainbed.errors import UsageError
from domainbed_gs.curvature.layerwise import is_separable
from domainbed_gs.curvature.losses import MeanLoss, SampleLoss, gradient, hessian_product
from domainbed_gs.curvature.network import ParameterVector, trained_names

CLASSES = 3


def linear():
    return nn.Linear(4, CLASSES)


def convolutional():
    norm = nn.BatchNorm2d(2)
    norm.running_mean.fill_(0.3), norm.running_var.fill_(2.0)
    layers = (nn.Conv2d(1, 2, 2), norm, nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten())
    return nn.Sequential(*layers, nn.Dropout(), nn.Linear(2, CLASSES))


class Attention(nn.Module):
    """A token, attention over three positions, and a parameter that belongs to no layer."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        return self.head(self.attention(x, x, x, need_weights=False)[0][:, 0])


def normalised():
    """Layers over positions, with norms that look at one sample at a time, and no bias."""
    layers = (nn.Linear(4, 6, bias=False), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 5), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(10, CLASSES))


def grouped():
    """A group norm, a strided convolution in groups, a sigmoid and a mean over positions."""
    layers = (nn.Conv2d(2, 4, 2, groups=2), nn.GroupNorm(2, 4), nn.SiLU(), nn.AvgPool2d(3), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(4, CLASSES))


class TwoNames(nn.Module):
    """A layer that two attributes hold, as in ERM, and a weight that two layers share."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, CLASSES, bias=False)
        self.network = nn.Sequential(self.first, nn.Tanh(), nn.Linear(CLASSES, 4, bias=False), nn.Tanh())
        self.last = nn.Linear(4, CLASSES)
        self.last.weight = self.first.weight

    def forward(self, x):
        return self.last(self.network(x))


NETWORKS = {
    "two names": (TwoNames, (4,)),
    "linear": (linear, (4,)),
    "conv": (convolutional, (1, 4, 4)),
    "norms": (normalised, (2, 4)),
    "groups": (grouped, (2, 4, 4)),
    "attention": (Attention, (2, 4)),
}
BY_LAYERS = ("linear", "conv", "norms", "groups")


def make(name, n=7, chunk=3, by_layers=None):
    """A network in float64, its parameters, and samples."""
    torch.manual_seed(1)
    build, shape = NETWORKS[name]
    network = build().double().eval()
    x, y = torch.randn(n, *shape, dtype=torch.float64), torch.randint(CLASSES, (n,))
    parameters = ParameterVector(network, trained_names(network, x[:2]))
    return network, parameters, x, y, SampleLoss(network, parameters, x, y, chunk, by_layers)


def dense(network, parameters, x, y):
    """The loss as a function of the vector, for autograd's own Hessian."""

    def loss(vector):
        # torch's own function leaves other values in modules with two names: a copy for each call.
        return F.cross_entropy(functional_call(copy.deepcopy(network), parameters.views(vector), (x,)), y)

    return loss


def test_networks_whose_parameters_belong_to_layers_are_found():
    for name in NETWORKS:
        network, parameters, x, y, _ = make(name)
        assert is_separable(network, parameters.names, x[:1], y[:1]) == (name in BY_LAYERS)


def test_a_layer_with_a_parameter_that_it_does_not_use_is_differentiated_as_a_whole():
    network, _, x, y, _ = make("linear")
    network.unused = nn.Parameter(torch.zeros(2))
    names = trained_names(network, x[:2])
    assert names == ["weight", "bias"]
    assert not is_separable(network, names, x[:1], y[:1])


@pytest.mark.parametrize(
    ("name", "by_layers"), [*((name, True) for name in BY_LAYERS), *((name, False) for name in NETWORKS)]
)
def test_gradients_and_products_are_those_of_the_dense_hessian(name, by_layers):
    network, parameters, x, y, loss = make(name, by_layers=by_layers)
    at = parameters.values + 0.1
    expected = dense(network, parameters, x, y)
    with sdpa_kernel(SDPBackend.MATH):  # torch's fused attention has no second derivative
        hessian = torch.autograd.functional.hessian(expected, at)
    assert loss.value(at) == pytest.approx(float(expected(at)), rel=1e-12)
    torch.testing.assert_close(gradient(loss, at), torch.autograd.functional.jacobian(expected, at))
    for column in range(0, len(parameters), 3):
        unit = torch.zeros_like(at)
        unit[column] = 1
        torch.testing.assert_close(hessian_product(loss, at, unit), hessian[:, column])


def test_the_hessian_of_a_linear_softmax_model_is_that_of_the_formula():
    """H = mean_i (diag(p_i) - p_i p_i^T) (x) x_i x_i^T, with a one appended to x for the bias."""
    _, parameters, x, _, loss = make("linear")
    assert parameters.names == ["weight", "bias"]
    weight, bias = parameters.views(parameters.values).values()
    p = torch.softmax(x @ weight.T + bias, 1)
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    inputs = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    hessian = torch.einsum("ncd,nj,nk->cjdk", curvature, inputs, inputs) / len(x)
    columns = [hessian[:, :-1].flatten(0, 1), hessian[:, -1]]  # our vector has the weights first
    rows = torch.cat(columns)
    expected = torch.cat([rows[:, :, :-1].flatten(1), rows[:, :, -1]], 1)
    identity = torch.eye(len(parameters), dtype=x.dtype)
    found = torch.stack([hessian_product(loss, parameters.values, unit) for unit in identity])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_order_and_chunks_of_samples_do_not_matter(name):
    network, parameters, x, y, loss = make(name)
    order = torch.randperm(len(y))
    other = SampleLoss(network, parameters, x[order], y[order], chunk=5)
    at, vector = parameters.values, torch.randn(len(parameters), dtype=torch.float64)
    assert other.value(at) == pytest.approx(loss.value(at), rel=1e-13)
    torch.testing.assert_close(gradient(other, at), gradient(loss, at), rtol=1e-10, atol=1e-13)
    products = [hessian_product(each, at, vector) for each in (other, loss)]
    torch.testing.assert_close(*products, rtol=1e-10, atol=1e-13)


def test_a_mean_of_losses_has_the_mean_of_values_gradients_and_products():
    network, parameters, x, y, _ = make("conv")
    parts = [SampleLoss(network, parameters, x[:2], y[:2]), SampleLoss(network, parameters, x[2:], y[2:])]
    mean, at = MeanLoss(parts), parameters.values
    vector = torch.randn(len(parameters), dtype=torch.float64)
    assert mean.value(at) == pytest.approx(sum(part.value(at) for part in parts) / 2)
    torch.testing.assert_close(gradient(mean, at), sum(gradient(part, at) for part in parts) / 2)
    expected = sum(hessian_product(part, at, vector) for part in parts) / 2
    torch.testing.assert_close(hessian_product(mean, at, vector), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_itself_keeps_its_parameters(name):
    network, parameters, _, _, loss = make(name)
    before, kept = parameters.values.clone(), list(network.parameters())
    other = parameters.values + 1
    loss.value(other), gradient(loss, other), hessian_product(loss, other, other)
    assert torch.equal(parameters.values, before)
    assert all(now is then for now, then in zip(network.parameters(), kept, strict=True))
    assert loss.value(before) != loss.value(other)


def test_parameters_become_views_of_one_vector_and_are_not_changed():
    network, _, x, _, _ = make("conv")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    vector = ParameterVector(network, trained_names(network, x[:2]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    vector.values.zero_()
    assert all(not parameter.any() for parameter in network.parameters())


def test_only_trained_parameters_that_the_outputs_depend_on_are_named():
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    network[0].requires_grad_(False)
    network[1].other = nn.Parameter(torch.zeros(3))
    assert trained_names(network, torch.zeros(2, 4)) == ["1.weight", "1.bias"]
    network.requires_grad_(False)
    with pytest.raises(UsageError, match="depend on no trained parameter"):
        trained_names(network, torch.zeros(2, 4))
