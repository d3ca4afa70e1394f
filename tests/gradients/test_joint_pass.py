"""All environments' gradients from one pass are those of a pass for each."""

import gc

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from domainbed.gradients.domain_gradients import environment_gradients
from domainbed.gradients.joint_pass import JointPass, NotSamplewise
from domainbed.gradients.parameter_gradients import Held, Outer

SEEDS = [11, 5, 11]
SIZES = (4, 1, 3)


def minibatches(*shape, sizes=SIZES):
    return [(torch.randn(n, *shape), torch.randint(3, (n,))) for n in sizes]


def visited(network, batches, seeds=SEEDS):
    """Losses (K,), and position -> (matrix (K, M), Gram matrix, weighted sum) of each visit's parameters."""
    parameters, weights = list(network.parameters()), torch.tensor([0.5, -2.0, 1.0])
    joint, found = JointPass(network, batches, parameters, seeds), {}

    def visit(positions, gradients):
        matrix = torch.cat([block.clone() for _, block in gradients.blocks()], 1)
        assert next(start for start, _ in gradients.blocks()) == 0
        gradients.write(weights, total := torch.empty_like(matrix[0]))
        found[tuple(positions)] = matrix, gradients.gram(), total

    joint.backward(visit)
    return joint.losses, found


def check(network, batches):
    parameters = list(network.parameters())
    losses, found = visited(network, batches)
    pairs = list(
        environment_gradients(lambda x, y: F.cross_entropy(network(x), y), batches, parameters, SEEDS)
    )
    torch.testing.assert_close(losses, torch.stack([loss for loss, _ in pairs]))
    gradients = torch.stack([gradient for _, gradient in pairs])
    parts = gradients.split([parameter.numel() for parameter in parameters], dim=1)
    seen = [position for positions in found for position in positions]
    assert len(set(seen)) == len(seen)
    for positions, (matrix, gram, total) in found.items():
        expected = torch.cat([parts[position] for position in positions], 1)
        torch.testing.assert_close(matrix, expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(gram, expected @ expected.T, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(total, torch.tensor([0.5, -2.0, 1.0]) @ expected, rtol=1e-9, atol=1e-12)
    for position in set(range(len(parameters))) - set(seen):
        assert not parts[position].any()


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


def test_frozen_and_unused_parameters_are_not_visited(float64):
    frozen, unused = nn.Linear(6, 6).requires_grad_(False), nn.Linear(2, 2)
    network = nn.Sequential(frozen, nn.ReLU(), nn.Linear(6, 3))
    network.unused = unused
    network.forward = lambda x: network[2](network[1](network[0](x)))
    parameters = [p for p in network.parameters() if p.requires_grad]
    joint, seen = JointPass(network, minibatches(6), parameters, SEEDS), []
    joint.backward(lambda positions, gradients: seen.extend(positions))
    assert [parameters[i].shape for i in sorted(seen)] == [(3, 6), (3,)]


def test_a_large_layers_gradient_is_made_in_blocks(monkeypatch, float64):
    monkeypatch.setattr("domainbed.gradients.parameter_gradients._AT_ONCE", 192)
    monkeypatch.setattr(Held, "SMALL", 64)
    torch.manual_seed(0)
    check(nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 3)), minibatches(20))


@pytest.mark.parametrize("rows", [2, 50])
def test_inner_products_by_rows_or_by_blocks(float64, rows):
    sizes = [rows, rows + 1]
    b, a = torch.randn(sum(sizes), 7), torch.randn(sum(sizes), 9)
    gradients = torch.stack(
        [(y.T @ x).flatten() for y, x in zip(b.split(sizes), a.split(sizes), strict=True)]
    )
    found = Outer(b, a, sizes, torch.float64).gram()
    torch.testing.assert_close(found, gradients @ gradients.T)


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


class SecondUnused(nn.Module):
    """Its second layer makes nothing that the loss depends on."""

    def __init__(self, norm):
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(2, 4, 3), norm, nn.Linear(4, 3)

    def forward(self, x):
        x = self.first(x)
        self.norm(x)
        return self.second(x.flatten(2).mean(2))


@pytest.mark.parametrize("name", NORMS)
def test_nothing_of_a_pass_outlives_it(float64, live_tensors, name):
    norm = NORMS[name].double()
    plain = nn.Sequential(nn.Conv2d(2, 4, 3), norm, nn.ReLU(), Pooled(), nn.Linear(4, 3)).double()
    for network in (plain, SecondUnused(norm).double()):
        batches = minibatches(2, 7, 7)
        visited(network, batches)
        before = live_tensors()
        for _ in range(3):
            visited(network, batches)
        assert live_tensors() == before


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(self.layer(x).relu())


class Raw(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return x * self.scale


class Rows(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x):
        return self.layer(x.reshape(-1, 1)).view(x.shape)


@pytest.mark.parametrize(
    "network",
    [
        Twice(),
        Raw(),
        Rows(),
        nn.BatchNorm1d(3),
        nn.BatchNorm1d(3, affine=False),
        nn.AlphaDropout(),
        nn.RReLU(),
    ],
    ids=lambda network: type(network).__name__,
)
def test_what_can_not_be_taken_apart_is_refused_in_the_forward_pass(network):
    network = nn.Sequential(nn.Linear(3, 3), network)
    with pytest.raises(NotSamplewise):
        JointPass(network, minibatches(3), list(network.parameters()), SEEDS)


def test_under_autocast_the_gradients_are_those_of_separate_passes():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), Pooled(), nn.Linear(4, 3))
    batches, parameters = minibatches(2, 6, 6), list(network.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        _, found = visited(network, batches)
        pairs = environment_gradients(lambda x, y: F.cross_entropy(network(x), y), batches, parameters, SEEDS)
        expected = torch.stack([gradient for _, gradient in pairs])
    together = torch.cat([matrix for matrix, _, _ in found.values()], 1)
    assert together.dtype == torch.float32
    order = [position for positions in found for position in positions]
    parts = expected.split([parameter.numel() for parameter in parameters], dim=1)
    torch.testing.assert_close(together, torch.cat([parts[i] for i in order], 1), rtol=0.05, atol=0.02)
