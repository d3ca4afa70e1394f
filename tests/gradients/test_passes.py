"""The K gradients of a joint pass are those of a pass for each environment."""

import gc

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from domainbed.gradients import passes
from domainbed.gradients.layers import layer_gradients
from domainbed.gradients.passes import environment_gradients, joint_pass, separate_passes
from domainbed.gradients.pieces import OuterProducts
from domainbed.gradients.recording import LayerPass
from domainbed.gradients.vectors import Layout

SEEDS = [11, 5, 11]
SIZES = (4, 1, 3)
WEIGHTS = torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64)


def minibatches(*shape, sizes=SIZES):
    return [(torch.randn(n, *shape), torch.randint(3, (n,))) for n in sizes]


def loss_of(network):
    return lambda x, y: F.cross_entropy(network(x), y)


def collect(made, parameters):
    """The gradients (K, P), the sum of the pieces' inner products (K, K), and the weighted sum (P,)."""
    size = Layout(parameters).size
    matrix, total = torch.full((len(SIZES), size), torch.nan), torch.full((size,), torch.nan)
    grams = []
    for piece in made.pieces:
        rows = [torch.cat(parts) for parts in zip(*map(copied, piece.gradients.blocks()), strict=True)]
        for row, values in zip(matrix, rows, strict=True):
            piece.scatter(values, row)
        piece.gradients.write(WEIGHTS, values := torch.empty(piece.size))
        piece.scatter(values, total)
        grams.append(piece.gradients.gram())
    return matrix, torch.stack(grams).sum(0), total


def copied(block):
    return [gradient.clone() for gradient in block[1]]


def check(network, batches):
    """Both ways give autograd's gradients, their inner products and their weighted sum."""
    parameters = list(network.parameters())
    losses, gradients = environment_gradients(loss_of(network), batches, parameters, SEEDS)
    expected = torch.stack([torch.cat([part.flatten() for part in parts]) for parts in gradients])
    for made in (
        joint_pass(network, batches, parameters, SEEDS, check=True),
        separate_passes(loss_of(network), batches, parameters, SEEDS),
    ):
        torch.testing.assert_close(made.losses, losses)
        matrix, gram, total = collect(made, parameters)
        torch.testing.assert_close(matrix, expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(gram, expected @ expected.T, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(total, WEIGHTS @ expected, rtol=1e-9, atol=1e-12)


class Pooled(nn.Module):
    def forward(self, x):
        return x.flatten(2).mean(2)


CONVOLUTIONS = {
    "plain": nn.Conv2d(4, 6, 3),
    "strided, padded, dilated, grouped": nn.Conv2d(
        4, 6, 3, stride=(2, 1), padding=(1, 2), dilation=2, groups=2
    ),
    "without bias": nn.Conv2d(4, 6, 2, bias=False),
    "1d": nn.Sequential(nn.Flatten(2), nn.Conv1d(4, 6, 3, padding=1)),
    "3d": nn.Sequential(nn.Unflatten(2, (2, 4)), nn.Conv3d(4, 6, 2)),
    "reflecting": nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(float64, name):
    torch.manual_seed(0)
    first = nn.Conv2d(2, 4, 1)  # its input has no gradient, the second one's has
    network = nn.Sequential(first, nn.ReLU(inplace=True), CONVOLUTIONS[name].double(), nn.Tanh(), Pooled())
    check(nn.Sequential(network, nn.Linear(6, 3)).double(), minibatches(2, 8, 8))


class OwnConvolution(nn.Module):
    """A layer of a user's own that calls a convolution as a function, with these arguments."""

    def __init__(self, function, *shape, **arguments):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape))
        self.function, self.arguments = function, arguments

    def forward(self, x):
        return self.function(x, self.weight, **self.arguments)


def with_plain_numbers(layer):
    """The layer with plain numbers where torch makes tuples."""
    for name in ("stride", "padding", "dilation"):
        setattr(layer, name, getattr(layer, name)[0])
    return layer


FUNCTIONS = {
    "1d by defaults": nn.Sequential(nn.Flatten(2), OwnConvolution(F.conv1d, 6, 4, 3)),
    "2d by defaults": OwnConvolution(F.conv2d, 6, 4, 3, 2),
    "3d by defaults": nn.Sequential(nn.Unflatten(2, (2, 4)), OwnConvolution(F.conv3d, 6, 4, 2, 2, 2)),
    "2d by numbers": OwnConvolution(F.conv2d, 6, 2, 3, 3, stride=2, padding=1, dilation=2, groups=2),
    "1d attributes": nn.Sequential(
        nn.Flatten(2), with_plain_numbers(nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2))
    ),
    "2d attributes": with_plain_numbers(nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2)),
    "3d attributes": nn.Sequential(
        nn.Unflatten(2, (2, 4)), with_plain_numbers(nn.Conv3d(4, 6, 2, stride=2, padding=1, dilation=2))
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_convolutions_called_as_functions_or_with_plain_numbers(float64, name):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), FUNCTIONS[name], nn.Tanh(), Pooled())
    check(nn.Sequential(network, nn.Linear(6, 3)).double(), minibatches(2, 8, 8))


NORMS = {
    "group": nn.GroupNorm(2, 4),
    "group without scale": nn.GroupNorm(2, 4, affine=False),
    "instance as group": nn.GroupNorm(4, 4),
    "layer": nn.LayerNorm((4, 5, 5)),
    "layer over the last": nn.LayerNorm(5),
    "batch in evaluation": nn.BatchNorm2d(4).eval(),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms(float64, name):
    torch.manual_seed(0)
    norm = NORMS[name].double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    if isinstance(norm, nn.BatchNorm2d):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    network = nn.Sequential(nn.Conv2d(2, 4, 3), norm, nn.ReLU(), Pooled(), nn.Linear(4, 3)).double()
    check(network, minibatches(2, 7, 7))


def test_linear_layers_on_vectors_and_on_several_positions(float64):
    torch.manual_seed(0)
    tokens = nn.Sequential(nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 4, bias=False), nn.Flatten())
    check(nn.Sequential(tokens, nn.Linear(12, 3)), minibatches(3, 5))


def test_dropout_draws_as_in_a_pass_for_each_environment(float64):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(30, 40), nn.Dropout(0.3), nn.ReLU(), nn.Dropout(), nn.Linear(40, 3))
    check(network, minibatches(30))


def test_dropout_of_nothing_and_in_evaluation(float64):
    for network in (nn.Dropout(0.0), nn.Dropout(0.9).eval()):
        check(nn.Sequential(network, nn.Linear(6, 3)), minibatches(6))


def test_dropout_in_place(float64):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(30, 40), nn.Dropout(0.3, inplace=True), nn.Linear(40, 3))
    check(network, minibatches(30))
    assert network[1].training


def test_frozen_parameters_have_no_gradient(float64):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 6).requires_grad_(False), nn.ReLU(), nn.Linear(6, 3))
    batches, parameters = minibatches(6), list(network[2].parameters())
    joint = collect(joint_pass(network, batches, parameters, SEEDS, check=True), parameters)
    separate = collect(separate_passes(loss_of(network), batches, parameters, SEEDS), parameters)
    for found, expected in zip(joint, separate, strict=True):
        torch.testing.assert_close(found, expected)


def test_a_parameter_without_a_gradient_counts_as_zero(float64):
    network = nn.Linear(4, 3)
    parameters = [nn.Parameter(torch.ones(2)), *network.parameters()]
    matrix, _, _ = collect(separate_passes(loss_of(network), minibatches(4), parameters, SEEDS), parameters)
    assert not matrix[:, :2].any()
    assert matrix[:, 2:].all(1).all()


def test_large_gradients_are_made_in_blocks_and_small_ones_together(monkeypatch, float64):
    monkeypatch.setattr("domainbed.gradients.pieces._BLOCK", 192)
    monkeypatch.setattr(passes, "SMALL", 64)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 3))
    check(network, minibatches(20))
    parameters = list(network.parameters())
    pieces = list(separate_passes(loss_of(network), minibatches(20), parameters, SEEDS).pieces)
    assert [len(piece.spans) for piece in pieces] == [1, 1, 2]
    assert pieces[2].contiguous is None
    blocks = [len(block[0]) for _, block in pieces[0].gradients.blocks()]
    assert sum(blocks) == 600
    assert max(blocks) <= 192 // 3


@pytest.mark.parametrize("rows", [2, 50])
def test_inner_products_by_rows_or_by_blocks(float64, rows):
    sizes = [rows, rows + 1]
    b, a = torch.randn(sum(sizes), 7), torch.randn(sum(sizes), 9)
    gradients = torch.stack(
        [(y.T @ x).flatten() for y, x in zip(b.split(sizes), a.split(sizes), strict=True)]
    )
    found = OuterProducts(b, a, sizes, torch.float64).gram()
    torch.testing.assert_close(found, gradients @ gradients.T)


def test_environments_with_the_same_seed_have_the_same_dropout_masks():
    network = nn.Sequential(nn.Dropout(0.5), nn.Linear(40, 2))
    batch = torch.randn(8, 40), torch.randint(2, (8,))
    losses, _ = environment_gradients(loss_of(network), [batch] * 3, list(network.parameters()), [7, 7, 8])
    assert losses[0] == losses[1] != losses[2]


@pytest.fixture
def live_tensors():
    """`live_tensors()`: number of tensors made since, and not freed."""

    def count():
        gc.collect()
        return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())

    gc.collect()
    gc.freeze()  # what is there already need not be looked at
    yield count
    gc.unfreeze()


@pytest.mark.parametrize("name", NORMS)
def test_nothing_of_a_pass_outlives_it(float64, live_tensors, name):
    norm = NORMS[name].double()
    network = nn.Sequential(nn.Conv2d(2, 4, 3), norm, nn.ReLU(), Pooled(), nn.Linear(4, 3)).double()
    batches, parameters = minibatches(2, 7, 7), list(network.parameters())

    def run():
        collect(joint_pass(network, batches, parameters, SEEDS, check=True), parameters)

    run()
    before = live_tensors()
    for _ in range(3):
        run()
    assert live_tensors() == before


class Scale(nn.Module):
    """A layer of a user's own, with a parameter that multiplies."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(5))

    def forward(self, x):
        return x * self.scale.tanh() + self.scale[0]


def test_a_users_own_layer_takes_part(float64):
    check(nn.Sequential(nn.Linear(6, 5), Scale(), nn.Linear(5, 3)), minibatches(6))


class NormWithActivation(nn.BatchNorm1d):
    """As those of timm's networks."""

    def __init__(self, size, activation):
        super().__init__(size)
        self.activation = activation
        self.running_var.uniform_(0.5, 2)

    def forward(self, x):
        return self.activation(super().forward(x))


def test_a_batch_norm_with_its_activation_is_a_layer(float64):
    norm = NormWithActivation(5, nn.ReLU(inplace=True)).eval()
    check(nn.Sequential(nn.Linear(6, 5), norm, nn.Linear(5, 3)), minibatches(6))


def test_under_autocast_the_gradients_are_those_of_separate_passes():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), Pooled(), nn.Linear(4, 3))
    batches, parameters = minibatches(2, 6, 6), list(network.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        joint = joint_pass(network, batches, parameters, SEEDS, check=True)
        separate = separate_passes(loss_of(network), batches, parameters, SEEDS)
        found, expected = (collect(made, parameters)[0] for made in (joint, separate))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("layer", [nn.GroupNorm(2, 4), OwnConvolution(F.conv2d, 4, 4, 3, 3)])
def test_under_autocast_gradients_of_norms_and_of_own_layers_are_formed_in_full_precision(layer):
    """Autocast rounded what goes in; whatever a device does to norms, nothing more is rounded on the way."""
    torch.manual_seed(0)
    x = torch.randn(8, 4, 6, 6).bfloat16()
    output = layer(x.float())
    b = torch.randn_like(output).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer_gradients(LayerPass(layer, x, b), [5, 3])
    for name, parameter in layer.named_parameters():
        for rows, part in zip(found[name].rows, (slice(0, 5), slice(5, 8)), strict=True):
            (expected,) = torch.autograd.grad(layer(x[part].float()), parameter, b[part].float())
            torch.testing.assert_close(rows, expected.flatten(), rtol=1e-5, atol=1e-5)
