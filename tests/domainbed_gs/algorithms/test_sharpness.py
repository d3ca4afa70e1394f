import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from domainbed.algorithms import get_algorithm_class
from domainbed.gradients.domain_gradients import loss_and_gradient, set_values
from domainbed.hparams_registry import default_hparams
from domainbed_gs.algorithms.perturbation import (
    asam_step,
    dgsam_gradient,
    gradual_ascent,
    gsam_gradient,
    restored,
    sagm_step,
    sam_step,
    two_points,
)

SHAPE = (3, 16, 16)
TWO_POINTS = ("SAM", "ASAM", "GSAM", "SAGM", "DISAM")
METHODS = (*TWO_POINTS, "DGSAM")

H = torch.tensor([[1, 4], [2, 1], [3, 0.5]], dtype=torch.float64)
A = torch.tensor([[0, 0], [1, -1], [-1, 2]], dtype=torch.float64)


@pytest.fixture
def quadratics():
    """The specification's example (E.1): L_k = 1/2 sum_d h_kd (theta_d - a_kd)^2 at theta = (1, 1)."""
    theta = nn.Parameter(torch.ones(2, dtype=torch.float64))

    def loss(k):
        return (H[k] * (theta - A[k]).square()).sum() / 2

    losses = [partial(loss, k) for k in range(3)]
    return losses, lambda: sum(each() for each in losses) / 3, [theta]


def close(tensor, expected):
    torch.testing.assert_close(tensor, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)


def test_the_mean_gradient_of_the_specification(quadratics):
    _, mean, theta = quadratics
    close(loss_and_gradient(mean, theta)[1], [7 / 3, 11 / 6])


def test_sam_gsam_and_sagm_on_the_specifications_quadratics(quadratics):
    _, mean, theta = quadratics
    sam = two_points(mean, mean, theta, lambda g, _: sam_step(g, 0.1))
    close(sam.gradient, [7 / 3, 11 / 6])
    close(sam.perturbed_gradient, [2.490597, 1.946601])
    assert sam.perturbed_loss > sam.loss
    close(gsam_gradient(sam.gradient, sam.perturbed_gradient, 0.4), [2.492469, 1.944205])
    sagm = two_points(mean, mean, theta, lambda g, _: sagm_step(g, 0.1, 0.01))
    close((sagm.gradient + sagm.perturbed_gradient) / 2, [2.388632, 1.873161])
    assert theta[0].tolist() == [1, 1]


def test_dgsam_on_the_specifications_quadratics(quadratics):
    losses, _, theta = quadratics
    visits = [*losses, losses[0]]
    walk = [gradient.tolist() for gradient in gradual_ascent(visits, theta, 0.1)]
    expected = [[1, 4], [0.048507, 2.097014], [6.079698, -0.401506], [1.126349, 4.761591]]
    assert walk == [pytest.approx(each, abs=1e-6) for each in expected]
    close(dgsam_gradient(visits, theta, 0.1), [6.190916, 7.842824])
    assert theta[0].tolist() == [1, 1]


def test_asams_step_is_of_length_rho_relative_to_the_weights():
    weights, gradient = torch.tensor([2.0, -1.0]), torch.tensor([3.0, 8.0])
    step = asam_step(gradient, weights, 0.5)
    torch.testing.assert_close(step, 0.5 * torch.tensor([12.0, 8.0]) / 10)
    assert (step / weights).norm().item() == pytest.approx(0.5)


numbers = st.floats(-10, 10, width=32).filter(lambda x: abs(x) > 1e-2)
vectors = st.lists(numbers, min_size=4, max_size=4).map(lambda x: torch.tensor(x, dtype=torch.float64))


@settings(max_examples=50, deadline=None)
@given(vectors, vectors, st.floats(0.001, 1), st.floats(0.1, 10))
def test_invariants_of_the_steps(gradient, other, rho, scale):
    step = sam_step(gradient, rho)
    assert step.norm().item() == pytest.approx(rho)
    torch.testing.assert_close(sam_step(scale * gradient, rho), step)
    torch.testing.assert_close(sagm_step(gradient, rho, 0.0), step)
    # Rescaling a weight and the loss's slope along it changes a perturbation as it changes the weight.
    scales = torch.tensor([scale, 1, 1 / scale, 2], dtype=torch.float64)
    torch.testing.assert_close(
        asam_step(gradient / scales, other * scales, rho), scales * asam_step(gradient, other, rho)
    )
    # GSAM leaves the part along the perturbed gradient, and takes alpha of the rest away.
    torch.testing.assert_close(gsam_gradient(gradient, other, 0.0), other)
    surrogate = gsam_gradient(gradient, other, rho)
    assert (surrogate @ other).item() == pytest.approx(other.square().sum().item())
    orthogonal = gradient - (gradient @ other) / (other @ other) * other
    torch.testing.assert_close(other - surrogate, rho * orthogonal)


@pytest.mark.parametrize("step", [sam_step, partial(sagm_step, alpha=0.1)])
def test_no_gradient_no_step(step):
    zero = torch.zeros(3)
    assert step(zero, rho=0.1).tolist() == [0, 0, 0]
    assert asam_step(zero, torch.ones(3), 0.1).tolist() == [0, 0, 0]
    assert gsam_gradient(zero, zero, 0.1).tolist() == [0, 0, 0]


def test_weights_come_back_to_the_bit_even_after_an_error():
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
def test_without_a_perturbation_the_gradient_is_erms(name):
    batches = minibatches(sizes=(6, 3, 8))
    erm = updated_gradient("ERM", batches)
    got = updated_gradient(name, batches, rho=0.0, sagm_alpha=0.0)
    torch.testing.assert_close(got, erm, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_dgsam_without_a_perturbation_is_k_times_erms_over_all_orders(k):
    """In expectation (E.2): the first environment counts twice, and each is the first equally often."""
    algorithm = make("DGSAM", k, rho=0.0, lr=1e-30)
    algorithm.network.eval()  # batch norms see one environment at a time otherwise
    batches = minibatches(k)
    erm = make("ERM", k)
    erm.network.eval()
    erm.update(batches)
    sums = {}
    for _ in range(40):
        algorithm.update(batches)
        gradient = gradient_of(algorithm)
        sums[round(gradient.double().sum().item(), 4)] = gradient
    assert len(sums) == k  # which of them is first is all that matters without an ascent
    torch.testing.assert_close(sum(sums.values()) / k, k * gradient_of(erm), rtol=1e-3, atol=1e-5)


def test_sam_on_a_network_equals_two_gradients_by_hand():
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
def test_weights_before_the_optimizers_step_are_those_before_the_update(name):
    algorithm = make(name)
    before = [p.detach().clone() for p in algorithm.network.parameters()]
    algorithm.optimizer = torch.optim.SGD(algorithm.network.parameters(), lr=0.0)
    algorithm.update(minibatches())
    assert all(torch.equal(a, b) for a, b in zip(before, algorithm.network.parameters(), strict=True))


def with_batch_norm(name, k=3):
    """The algorithm with a network that has running statistics."""
    algorithm = make(name, k)
    algorithm.network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(784, 2))
    algorithm.optimizer = algorithm.new_optimizer()
    return algorithm


@pytest.mark.parametrize("name", TWO_POINTS)
def test_the_second_pass_leaves_running_statistics_alone(name):
    algorithm, erm = with_batch_norm(name), with_batch_norm("ERM")
    batches = minibatches()
    algorithm.update(batches)
    erm.update(batches)
    for got, expected in zip(algorithm.network.buffers(), erm.network.buffers(), strict=True):
        assert torch.equal(got, expected)
    assert algorithm.network[1].num_batches_tracked == 1


@pytest.mark.parametrize("k", [1, 3])
def test_dgsam_counts_each_environment_once_in_running_statistics(k):
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


def test_disams_ascent_is_the_mean_less_lambda_variances():
    algorithm = make("DISAM", disam_lambda=0.5)
    losses = torch.tensor([1.0, 3, 4, 6, 8, 10])
    mean, variance = 32 / 6, torch.tensor([2.0, 4, 8]).var(unbiased=False).item()
    assert algorithm.ascent_loss(losses, [2, 1, 3]).item() == pytest.approx(mean - 0.5 * variance)


def test_the_order_depends_on_the_seed_and_the_update_alone():
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
def test_frozen_parameters_stay_and_do_no_harm(name):
    algorithm = make(name)
    frozen = next(algorithm.featurizer.parameters()).requires_grad_(False)
    before = frozen.clone()
    algorithm.update(minibatches())
    assert torch.equal(frozen, before)
    assert frozen.grad is None


def test_sagms_default_is_the_papers_for_each_dataset():
    assert default_hparams("SAGM", "PACS")["sagm_alpha"] == 1e-3
    assert default_hparams("SAGM", "OfficeHome")["sagm_alpha"] == 5e-4
