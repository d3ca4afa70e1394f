import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from domainbed.algorithms.densities import (
    Distribution1D,
    GaussianKernel,
    Kernel,
    KernelDensityEstimator,
    Nonparametric,
    Normal,
    continuous_bisect_fun_left,
    estimate_bandwidth,
)
from domainbed.errors import UsageError

points = st.lists(st.integers(-100, 100), min_size=2, max_size=6, unique=True).map(
    lambda values: torch.tensor(values, dtype=torch.float64) / 10
)
probabilities = st.floats(0.01, 0.99)


def double(value):
    return torch.tensor(value, dtype=torch.float64)


def fitted(x, **options):
    estimate = Nonparametric(**options)
    estimate.estimate_parameters(x)
    return estimate


# Quantiles


@given(points, st.data())
def test_quantiles_invert_probabilities_at_the_samples(x, data):
    estimate = fitted(x)
    point = x[data.draw(st.integers(0, len(x) - 1))]
    assert estimate.icdf(estimate.cdf(point)).item() == pytest.approx(point.item(), abs=1e-5)


@given(points, probabilities)
def test_probabilities_invert_quantiles(x, q):
    estimate = fitted(x)
    assert estimate.cdf(estimate.icdf(double(q))).item() == pytest.approx(q, abs=1e-5)


@given(st.floats(-5, 5), st.floats(0.1, 10), st.floats(-4, 4))
def test_normal_quantiles_invert_probabilities(location, scale, deviation):
    normal = Normal(double(location), double(scale))
    x = double(location + scale * deviation)
    assert normal.icdf(normal.cdf(x)).item() == pytest.approx(x.item(), abs=1e-9)


@given(points, probabilities, probabilities)
def test_quantiles_increase_with_the_probability(x, p, q):
    estimate = fitted(x)
    low, high = sorted((p, q))
    assert estimate.icdf(low).item() <= estimate.icdf(high).item()


def test_a_negative_q_is_the_logarithm_of_the_probability_above():
    x = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    estimate = fitted(x)
    expected = (x + estimate.bw * math.sqrt(2 * 50)).mean()
    torch.testing.assert_close(estimate.icdf(double(-50.0)), expected)
    torch.testing.assert_close(Normal(1.0, 2.0).icdf(-50.0), double(1 + 2 * math.sqrt(2 * 50)))


def test_a_float64_q_gives_a_float64_search():
    x = torch.tensor([0.1, 0.7, 0.9])
    found = fitted(x).icdf(double(0.75))
    assert found.dtype == torch.float64
    # The bandwidth is float32, whose rounding remains.
    torch.testing.assert_close(found, fitted(x.double()).icdf(0.75), rtol=1e-6, atol=0)
    assert fitted(x).icdf(0.75).dtype == torch.float32


def test_without_smoothing_quantiles_are_those_of_the_samples():
    x = torch.tensor([3.0, 1.0, 2.0, 5.0])
    estimate = fitted(x, use_kde=False)
    assert estimate.icdf(double(0.5)).item() == 2.5
    with pytest.raises(UsageError, match="samples alone have no density"):
        estimate.cdf(double(2.0))


# Bisection


def bisection_on_the_host(f, v, lo, hi, n_steps=32):
    """Bisection with a decision on the host in every round."""
    middle = (lo + hi) / 2
    for _ in range(n_steps):
        if bool(f(middle) > v):
            hi = middle
        else:
            lo = middle
        following = (lo + hi) / 2
        if bool(following == middle):
            break
        middle = following
    return middle


@given(
    points,
    probabilities,
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from([0.0, 1e-12, 1.0]),
    st.sampled_from([3, 32, 64]),
)
def test_bisection_equals_the_one_on_the_host_bit_for_bit(x, q, dtype, width, n_steps):
    """In values and gradients. With float32, narrow intervals or 64 rounds it ends early."""
    outcomes = []
    for bisect in (bisection_on_the_host, continuous_bisect_fun_left):
        estimate = fitted(x.to(dtype))
        lo = x.min().to(dtype).requires_grad_()
        hi = (x.min() + width * (x.max() - x.min())).to(dtype).requires_grad_()
        found = bisect(estimate.cdf, torch.tensor(q, dtype=dtype), lo, hi, n_steps)
        outcomes.append([found.item(), *(g.item() for g in torch.autograd.grad(found, [lo, hi]))])
    assert outcomes[0] == outcomes[1]


def test_bisection_of_plain_numbers():
    found = continuous_bisect_fun_left(lambda x: x**2, 2.0, 1.0, 2.0, n_steps=60)
    assert found.item() == pytest.approx(math.sqrt(2), abs=1e-15)


def test_a_quantile_does_not_wait_for_the_device():
    """Tensors on the meta device have no values to read."""
    estimate = fitted(torch.empty(4, device="meta"))
    q = torch.empty((), dtype=torch.float64, device="meta")
    assert estimate.icdf(q).shape == ()
    with pytest.raises(RuntimeError, match="meta"):
        bisection_on_the_host(estimate.cdf, q, q, q)


@given(st.integers(2, 5), st.integers(0, 24).map(lambda n: n / 8), probabilities)
def test_the_quantile_of_equal_samples_is_their_value_with_a_finite_gradient(k, value, q):
    """The bandwidth is 0 then, as when the risks of all environments are 0."""
    x = torch.full((k,), value, requires_grad=True)
    found = fitted(x).icdf(double(q))
    found.backward()
    assert found.item() == pytest.approx(value, rel=1e-6)
    assert x.grad.sum().item() == pytest.approx(1)


def test_gradients_of_a_quantile_are_those_of_a_mixture_of_the_bounds():
    """The bounds lo and hi depend on the extreme samples and the bandwidth; their weights are constant."""
    x = torch.tensor([0.3, 0.9, 0.5, 1.4], dtype=torch.float64, requires_grad=True)
    z = stats.norm.ppf(0.75)

    def bounds(values):
        bandwidth = 1.06 * np.std(values, ddof=1) * len(values) ** -0.2
        return np.array([values.min() + bandwidth * z, values.max() + bandwidth * z])

    found = fitted(x).icdf(double(0.75))
    (gradient,) = torch.autograd.grad(found, x)
    values = x.detach().numpy()
    lo, hi = bounds(values)
    share = (found.item() - lo) / (hi - lo)
    for i, expected in enumerate(gradient.tolist()):
        step = np.zeros(4)
        step[i] = 1e-6
        slopes = (bounds(values + step) - bounds(values - step)) / 2e-6
        assert expected == pytest.approx((1 - share) * slopes[0] + share * slopes[1], rel=1e-6)


# Estimates


@given(points, st.floats(-12, 12))
def test_densities_and_probabilities_equal_scipys(x, at):
    estimate = KernelDensityEstimator(x)
    bandwidth = estimate.bw.item()
    each = stats.norm(x.numpy(), bandwidth)
    assert estimate(double([at])).item() == pytest.approx(each.pdf(at).mean(), rel=1e-9)
    assert estimate.log_prob(double([at])).exp().item() == pytest.approx(each.pdf(at).mean(), rel=1e-9)
    assert estimate.cdf(double(at)).item() == pytest.approx(each.cdf(at).mean(), rel=1e-9)
    assert estimate.device == x.device


def test_the_kernel_accepts_several_points():
    train, test = torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.5, 0.9])
    kernel = GaussianKernel(0.5)
    assert kernel(test, train).shape == (3,)
    each = [kernel.cdf(point, train).item() for point in test]
    assert kernel.cdf(test, train).item() == pytest.approx(np.mean(each))
    assert Kernel().bw == 0.05
    for method in (Kernel().forward, Kernel().cdf):
        with pytest.raises(NotImplementedError):
            method(test, train)
    with pytest.raises(NotImplementedError):
        Kernel().sample(train)


@given(points)
def test_bandwidths_equal_their_formulas(x):
    std, n = np.std(x.numpy(), ddof=1), len(x)
    assert estimate_bandwidth(x, "gauss-Optimal").item() == pytest.approx(1.06 * std * n**-0.2)
    spread = min(std, stats.iqr(x.numpy()) / 1.34)
    assert estimate_bandwidth(x).item() == pytest.approx(0.9 * spread * n**-0.2)


def test_invalid_arguments_are_rejected():
    with pytest.raises(
        UsageError, match="the bandwidth's method is one of silverman, gauss-optimal, not 'wide'"
    ):
        estimate_bandwidth(torch.zeros(3), "wide")
    with pytest.raises(UsageError, match="a bandwidth needs 2 or more points, not 1"):
        estimate_bandwidth(torch.zeros(1))
    with pytest.raises(UsageError, match="the kernel is one of gaussian, not 'box'"):
        KernelDensityEstimator(torch.zeros(3), kernel="box")


def test_the_base_class_is_abstract():
    base = Distribution1D()
    for call in (lambda: base.parameters, base.create_dist, lambda: base.icdf(0.5), base.sample):
        with pytest.raises(NotImplementedError):
            call()
    with pytest.raises(NotImplementedError):
        base.estimate_parameters(torch.zeros(3))


def test_the_normal_distribution_is_fitted_by_mean_and_unbiased_variance():
    x = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    normal = Normal()
    normal.estimate_parameters(x)
    location, scale = normal.parameters
    assert location.item() == pytest.approx(np.mean(x.numpy()))
    assert scale.item() == pytest.approx(np.std(x.numpy(), ddof=1))
    at = double([0.0, 1.0])
    np.testing.assert_allclose(
        normal.log_prob(at), stats.norm(location.item(), scale.item()).logpdf(at), rtol=1e-9
    )


def test_equal_samples_give_a_normal_distribution_with_finite_gradients():
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    normal = Normal()
    normal.estimate_parameters(x)
    normal.icdf(double(0.9)).backward()
    assert normal.scale.item() == 1e-8
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("make", [Normal, Nonparametric])
def test_draws_follow_the_distribution(make):
    distribution = make()
    distribution.estimate_parameters(torch.tensor([0.0, 1.0, 5.0, 6.0]))
    torch.manual_seed(0)
    np.random.seed(0)
    draws = distribution.sample_n(4000)
    assert draws.shape == (4000,)
    assert distribution.sample().shape == ()
    for at in (-1.0, 1.5, 4.0, 7.0):
        share = (draws < at).double().mean().item()
        assert share == pytest.approx(distribution.cdf(torch.tensor(at)).item(), abs=0.03)
