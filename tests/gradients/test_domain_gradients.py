import pytest
import torch
import torch.nn.functional as F
from torch import nn

from domainbed.gradients.domain_gradients import environment_gradients, set_gradient


@pytest.fixture
def problem(float64):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    minibatches = [(torch.randn(n, 4), torch.randint(3, (n,))) for n in (6, 4, 5)]
    return network, minibatches


def test_each_is_the_gradient_of_its_environments_own_loss(problem):
    network, minibatches = problem
    parameters = list(network.parameters())
    pairs = environment_gradients(
        lambda x, y: F.cross_entropy(network(x), y), minibatches, parameters, [0] * 3
    )
    for (loss, gradient), (x, y) in zip(pairs, minibatches, strict=True):
        network.zero_grad()
        expected = F.cross_entropy(network(x), y)
        expected.backward()
        assert loss == expected.detach()
        torch.testing.assert_close(
            gradient, torch.cat([p.grad.flatten() for p in parameters]), rtol=0, atol=0
        )


def test_gradients_are_made_one_by_one(problem):
    network, minibatches = problem
    calls = []

    def loss_of(x, y):
        calls.append(len(x))
        return F.cross_entropy(network(x), y)

    pairs = environment_gradients(loss_of, minibatches, list(network.parameters()), [0] * 3)
    next(pairs)
    assert calls == [6]


def test_a_parameter_without_gradient_counts_as_zero(problem):
    network, minibatches = problem
    unused = nn.Parameter(torch.ones(2))
    parameters = [unused, *network.parameters()]
    (_, gradient), *_ = environment_gradients(
        lambda x, y: F.cross_entropy(network(x), y), minibatches, parameters, [0] * 3
    )
    assert gradient[:2].tolist() == [0, 0]
    assert gradient[2:].abs().min() >= 0
    assert len(gradient) == sum(p.numel() for p in parameters)


def test_environments_with_the_same_seed_have_the_same_dropout_masks():
    network = nn.Sequential(nn.Dropout(0.5), nn.Linear(40, 2))
    x, y = torch.randn(8, 40), torch.randint(2, (8,))
    pairs = environment_gradients(
        lambda a, b: F.cross_entropy(network(a), b), [(x, y)] * 3, list(network.parameters()), [7, 7, 8]
    )
    losses = [loss.item() for loss, _ in pairs]
    assert losses[0] == losses[1] != losses[2]


def test_set_gradient_gives_each_parameter_its_part(problem):
    network, _ = problem
    parameters = list(network.parameters())
    gradient = torch.arange(sum(p.numel() for p in parameters), dtype=torch.float64)
    set_gradient(parameters, gradient)
    assert torch.equal(torch.cat([p.grad.flatten() for p in parameters]), gradient)
    assert all(p.grad.shape == p.shape for p in parameters)
