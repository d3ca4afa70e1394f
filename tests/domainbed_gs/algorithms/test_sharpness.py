"""SAM and its variants: their rules on a worked example, and what they do to a network."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim

from domainbed.algorithms import get_algorithm_class
from domainbed.gradients.vectors import set_values
from domainbed.hparams_registry import default_hparams
from domainbed.seeds import generator
from domainbed_gs.algorithms.sharpness import ASAM, GSAM, SAGM, SAM, restored
from domainbed_gs.algorithms.sharpness_dgsam import DGSAM, gradual_ascent

SHAPE = (3, 16, 16)
TWO_POINTS = ("SAM", "ASAM", "GSAM", "SAGM", "DISAM")
METHODS = (*TWO_POINTS, "DGSAM")


class Quadratic(nn.Module):
    """Losses L_k = 1/2 sum_d h_kd (theta_d - a_kd)^2 of three environments, at theta = (1, 1)."""

    H = torch.tensor([[1, 4], [2, 1], [3, 0.5]], dtype=torch.float64)
    A = torch.tensor([[0, 0], [1, -1], [-1, 2]], dtype=torch.float64)

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.ones(2, dtype=torch.float64))

    def forward(self, k):
        return (self.H[k] * (self.theta - self.A[k]).square()).sum(-1) / 2


def on_quadratics(cls, **overrides):
    """What an update of `cls` on the quadratics returns, and the gradient that its optimizer gets."""

    class OnQuadratics(cls):
        def sample_losses(self, x, y):
            return self.network(x)

        def loss_without_statistics(self, x, y):
            return self.network(x).mean()

    hparams = default_hparams(cls.__name__, "Debug28") | {"featurizer": "small_cnn"} | overrides
    algorithm = OnQuadratics(SHAPE, 2, 3, hparams)
    algorithm.network = Quadratic()
    algorithm.optimizer = optim.SGD(algorithm.network.parameters(), lr=0.0)
    orders = ((seed, generator(seed, 0).permutation(3).tolist()) for seed in range(100))
    algorithm.order_seed = next(seed for seed, order in orders if order == [0, 1, 2])
    values = algorithm.update([(torch.tensor([k]), torch.tensor([0])) for k in range(3)])
    assert algorithm.network.theta.tolist() == [1, 1]
    return values, algorithm.network.theta.grad


def close(tensor, expected):
    torch.testing.assert_close(tensor, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)


def test_sam_gsam_and_sagm_on_the_quadratics():
    values, gradient = on_quadratics(SAM, rho=0.1)
    close(gradient, [2.490597, 1.946601])
    assert values["sharpness"] > 0
    close(on_quadratics(SAM, rho=0.0)[1], [7 / 3, 11 / 6])
    close(on_quadratics(GSAM, rho=0.1, gsam_alpha=0.4)[1], [2.492469, 1.944205])
    close(on_quadratics(SAGM, rho=0.1, sagm_alpha=0.01)[1], [2.388632, 1.873161])


def test_dgsam_on_the_quadratics():
    network = Quadratic()
    losses = [lambda k=k: network(k) for k in (0, 1, 2, 0)]
    walk = [gradient.tolist() for gradient in gradual_ascent(losses, [network.theta], 0.1)]
    expected = [[1, 4], [0.048507, 2.097014], [6.079698, -0.401506], [1.126349, 4.761591]]
    assert walk == [pytest.approx(each, abs=1e-6) for each in expected]
    assert network.theta.tolist() == [1, 1]
    close(on_quadratics(DGSAM, rho=0.1)[1], [6.190916, 7.842824])


def perturbation(cls, gradient, weights=None, **hparams):
    """The perturbation of a method, without a network."""
    return cls.perturbation(SimpleNamespace(hparams=hparams), gradient, weights)


def combined(cls, gradient, perturbed_gradient, **hparams):
    """The combined gradient of a method, without a network."""
    return cls.combine(SimpleNamespace(hparams=hparams), gradient, perturbed_gradient)


def test_asams_perturbation_has_length_rho_relative_to_the_weights():
    weights, gradient = torch.tensor([2.0, -1.0]), torch.tensor([3.0, 8.0])
    step = perturbation(ASAM, gradient, weights, rho=0.5)
    torch.testing.assert_close(step, 0.5 * torch.tensor([12.0, 8.0]) / 10)
    assert (step / weights).norm().item() == pytest.approx(0.5)


numbers = st.floats(-10, 10, width=32).filter(lambda x: abs(x) > 1e-2)
vectors = st.lists(numbers, min_size=4, max_size=4).map(lambda x: torch.tensor(x, dtype=torch.float64))


@settings(max_examples=50, deadline=None)
@given(vectors, vectors, st.floats(0.001, 1), st.floats(0.1, 10))
def test_invariants_of_the_rules(gradient, other, rho, scale):
    step = perturbation(SAM, gradient, rho=rho)
    assert step.norm().item() == pytest.approx(rho)
    torch.testing.assert_close(perturbation(SAM, scale * gradient, rho=rho), step)
    torch.testing.assert_close(perturbation(SAGM, gradient, rho=rho, sagm_alpha=0.0), step)
    # Rescaling a weight and the loss's slope along it rescales ASAM's perturbation like the weight.
    scales = torch.tensor([scale, 1, 1 / scale, 2], dtype=torch.float64)
    torch.testing.assert_close(
        perturbation(ASAM, gradient / scales, other * scales, rho=rho),
        scales * perturbation(ASAM, gradient, other, rho=rho),
    )
    # GSAM keeps the component along the perturbed gradient, and subtracts alpha times the orthogonal one.
    torch.testing.assert_close(combined(GSAM, gradient, other, gsam_alpha=0.0), other)
    surrogate = combined(GSAM, gradient, other, gsam_alpha=rho)
    assert (surrogate @ other).item() == pytest.approx(other.square().sum().item())
    orthogonal = gradient - (gradient @ other) / (other @ other) * other
    torch.testing.assert_close(other - surrogate, rho * orthogonal)


def test_a_zero_gradient_gives_no_perturbation():
    zero = torch.zeros(3)
    assert perturbation(SAM, zero, rho=0.1).tolist() == [0, 0, 0]
    assert perturbation(SAGM, zero, rho=0.1, sagm_alpha=0.1).tolist() == [0, 0, 0]
    assert perturbation(ASAM, zero, torch.ones(3), rho=0.1).tolist() == [0, 0, 0]
    assert combined(GSAM, zero, zero, gsam_alpha=0.1).tolist() == [0, 0, 0]


def test_weights_are_restored_bit_for_bit_even_after_an_error():
    theta = nn.Parameter(torch.full((1000,), 0.1) + torch.arange(1000) * 1e-7)
    before = theta.detach().clone()

    def fail():
        with restored([theta]) as values:
            set_values([theta], values + 1 / 3)
            assert not torch.equal(theta, before)
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.equal(theta, before)


def minibatches(k=3, sizes=(6, 6, 6, 6, 6)):
    generator = torch.Generator().manual_seed(3)
    return [
        (torch.randn(n, *SHAPE, generator=generator), torch.randint(2, (n,), generator=generator))
        for n in sizes[:k]
    ]


def make(name, k=3, seed=0, **overrides):
    torch.manual_seed(seed)
    hparams = default_hparams(name, "Debug28") | {"featurizer": "small_cnn"} | overrides
    return get_algorithm_class(name)(SHAPE, 2, k, hparams)


def gradient_of(algorithm):
    return torch.cat([p.grad.flatten() for p in algorithm.network.parameters()])


def updated_gradient(name, batches, **overrides):
    algorithm = make(name, len(batches), **overrides)
    algorithm.update(batches)
    return gradient_of(algorithm)


@pytest.mark.parametrize("name", TWO_POINTS)
def test_without_a_perturbation_the_gradient_is_that_of_erm(name):
    batches = minibatches(sizes=(6, 3, 8))
    erm = updated_gradient("ERM", batches)
    got = updated_gradient(name, batches, rho=0.0, sagm_alpha=0.0)
    torch.testing.assert_close(got, erm, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_dgsam_without_a_perturbation_is_k_times_erms_over_all_orders(k):
    """In expectation over orders: the first environment counts twice, and each is first equally often."""
    algorithm = make("DGSAM", k, rho=0.0, lr=1e-30)
    algorithm.network.eval()  # in training mode, batch norms see one environment at a time
    batches = minibatches(k)
    erm = make("ERM", k)
    erm.network.eval()
    erm.update(batches)
    sums = {}
    for _ in range(40):
        algorithm.update(batches)
        gradient = gradient_of(algorithm)
        sums[round(gradient.double().sum().item(), 4)] = gradient
    assert len(sums) == k  # without a perturbation, only the first environment matters
    torch.testing.assert_close(sum(sums.values()) / k, k * gradient_of(erm), rtol=1e-3, atol=1e-5)


def test_sam_on_a_network_equals_two_gradients_by_autograd():
    batches = minibatches()
    algorithm = make("SAM")
    network = copy.deepcopy(algorithm.network)
    x, y = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    loss = F.cross_entropy(network(x), y)
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    norm = sum(g.square().sum() for g in gradients).sqrt()
    with torch.no_grad():
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            parameter += 0.05 * gradient / norm
    perturbed = F.cross_entropy(network(x), y)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(perturbed, list(network.parameters()))])
    values = algorithm.update(batches)
    torch.testing.assert_close(gradient_of(algorithm), expected, rtol=1e-3, atol=1e-6)
    assert values["loss"] == pytest.approx(loss.item(), abs=1e-6)
    assert values["sharpness"] == pytest.approx((perturbed - loss).item(), abs=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_the_optimizer_steps_from_the_unperturbed_weights(name):
    algorithm = make(name)
    before = [p.detach().clone() for p in algorithm.network.parameters()]
    algorithm.optimizer = torch.optim.SGD(algorithm.network.parameters(), lr=0.0)
    algorithm.update(minibatches())
    assert all(torch.equal(a, b) for a, b in zip(before, algorithm.network.parameters(), strict=True))


def with_batch_norm(name, k=3):
    """The algorithm with a network that has a batch norm."""
    algorithm = make(name, k)
    algorithm.network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(784, 2))
    algorithm.optimizer = algorithm.new_optimizer()
    return algorithm


@pytest.mark.parametrize("name", TWO_POINTS)
def test_the_second_pass_does_not_update_running_statistics(name):
    algorithm, erm = with_batch_norm(name), with_batch_norm("ERM")
    batches = minibatches()
    algorithm.update(batches)
    erm.update(batches)
    for got, expected in zip(algorithm.network.buffers(), erm.network.buffers(), strict=True):
        assert torch.equal(got, expected)
    assert algorithm.network[1].num_batches_tracked == 1


@pytest.mark.parametrize("k", [1, 3])
def test_dgsam_updates_running_statistics_once_for_each_environment(k):
    algorithm = with_batch_norm("DGSAM", k)
    algorithm.update(minibatches(k))
    assert algorithm.network[1].num_batches_tracked == k


def test_disam_with_one_environment_or_lambda_0_is_sam():
    for batches, weight in ((minibatches(1), 0.1), (minibatches(3, (6, 2, 8)), 0.0)):
        sam = updated_gradient("SAM", batches)
        torch.testing.assert_close(updated_gradient("DISAM", batches, disam_lambda=weight), sam)
    batches = minibatches(3)
    sam = updated_gradient("SAM", batches)
    assert (updated_gradient("DISAM", batches, disam_lambda=0.5) - sam).abs().max() > 1e-5


def test_disams_ascent_loss_is_the_mean_minus_lambda_times_the_variance():
    algorithm = make("DISAM", disam_lambda=0.5)
    losses = torch.tensor([1.0, 3, 4, 6, 8, 10])
    mean, variance = 32 / 6, torch.tensor([2.0, 4, 8]).var(unbiased=False).item()
    assert algorithm.ascent_loss(losses, [2, 1, 3]).item() == pytest.approx(mean - 0.5 * variance)


def test_the_order_depends_only_on_the_seed_and_the_update():
    batches = minibatches(3)
    gradients = []
    for draws in (0, 7):
        algorithm = make("DGSAM")
        torch.rand(draws)
        algorithm.update(batches)
        gradients.append(gradient_of(algorithm))
    assert torch.equal(*gradients)
    seeds = {updated_gradient("DGSAM", batches, seed=0).sum().item()}
    algorithm = make("DGSAM", lr=1e-30)
    for _ in range(10):
        algorithm.update(batches)
        seeds.add(round(gradient_of(algorithm).sum().item(), 4))
    assert len(seeds) > 2


@pytest.mark.parametrize("name", METHODS)
def test_frozen_parameters_stay_unchanged(name):
    algorithm = make(name)
    frozen = next(algorithm.featurizer.parameters()).requires_grad_(False)
    before = frozen.clone()
    algorithm.update(minibatches())
    assert torch.equal(frozen, before)
    assert frozen.grad is None


def test_sagms_default_is_the_papers_value_for_each_dataset():
    assert default_hparams("SAGM", "PACS")["sagm_alpha"] == 1e-3
    assert default_hparams("SAGM", "OfficeHome")["sagm_alpha"] == 5e-4
