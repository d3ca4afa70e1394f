import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from domainbed.algorithms.discrepancy import (
    GAMMAS,
    covariance,
    gaussian_kernel,
    gaussian_mmd,
    mean,
    moment_distance,
    squared_distances,
    variance,
)
from domainbed.errors import UsageError

WIDE = (0.01, 0.1, 1.0)  # widths at which no kernel vanishes
both = pytest.mark.parametrize("distance", [gaussian_mmd, moment_distance])
sizes = st.lists(st.integers(2, 6), min_size=2, max_size=4)
seeds = st.integers(0, 2**31)


def sets(sizes, seed, features=3):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(n, features, dtype=torch.float64, generator=generator) * (1 + i / 2) + i
        for i, n in enumerate(sizes)
    ]


def mmd_by_definition(x, y, gammas=GAMMAS):
    def kernel(a, b):
        return np.mean([[sum(np.exp(-g * np.sum((p - q) ** 2)) for g in gammas) for p in a] for q in b])

    return kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)


def moments_by_definition(x, y):
    means = np.mean((x.mean(0) - y.mean(0)) ** 2)
    return means + np.mean((np.cov(x, rowvar=False) - np.cov(y, rowvar=False)) ** 2)


@pytest.mark.parametrize(
    ("distance", "definition"), [(gaussian_mmd, mmd_by_definition), (moment_distance, moments_by_definition)]
)
@given(sizes=sizes, seed=seeds)
def test_distances_equal_the_definition(distance, definition, sizes, seed):
    samples = sets(sizes, seed)
    expected = np.mean([definition(a.numpy(), b.numpy()) for a, b in itertools.combinations(samples, 2)])
    assert distance(samples).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@both
@given(sizes=sizes, seed=seeds, shuffle=st.randoms())
def test_the_order_of_sets_and_samples_does_not_matter(distance, sizes, seed, shuffle):
    samples = sets(sizes, seed)
    mixed = [x[shuffle.sample(range(len(x)), len(x))] for x in shuffle.sample(samples, len(samples))]
    torch.testing.assert_close(distance(mixed), distance(samples))


@both
@given(seed=seeds, k=st.integers(2, 4))
def test_only_equal_sets_have_distance_zero(distance, seed, k):
    (x,) = sets([5], seed)
    assert abs(distance([x.clone() for _ in range(k)]).item()) < 1e-12
    assert distance([x, 2 * x + 1]).item() > 1e-3


@both
@given(seed=seeds)
def test_distances_are_invariant_to_shifts_and_rotations(distance, seed):
    samples = sets([4, 6], seed)
    rotation, _ = torch.linalg.qr(sets([3], seed + 1)[0])
    moved = [x @ rotation + 7 for x in samples]
    # Orthogonal maps preserve distances, and norms of means and covariances.
    torch.testing.assert_close(distance(moved), distance(samples), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("distance", [moment_distance, lambda samples: gaussian_mmd(samples, WIDE)])
def test_gradients_equal_finite_differences(distance):
    samples = [x.requires_grad_() for x in sets([4, 3, 5], seed=0)]
    assert torch.autograd.gradcheck(lambda *each: distance(each), samples)


@both
def test_the_distance_of_a_single_set_is_zero(distance):
    assert distance(sets([3], 0)).item() == 0


@both
def test_bfloat16_samples_are_compared_in_full_precision_under_autocast(distance):
    samples = [x.bfloat16() for x in sets([5, 6], 0, features=8)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = distance(samples)
    torch.testing.assert_close(found, distance([x.float() for x in samples]), rtol=0, atol=0)


def test_squared_distances_and_kernel_by_hand():
    x, y = torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[3.0, 4.0]])
    assert squared_distances(x, y).flatten().tolist() == pytest.approx([25, 1e-30])
    assert gaussian_kernel(y, y).item() == len(GAMMAS)
    expected = sum(np.exp(-25 * gamma) for gamma in (0.1, 0.2))
    assert gaussian_kernel(x, y, (0.1, 0.2))[0, 0].item() == pytest.approx(expected)


def test_squared_distances_are_positive_despite_rounding():
    x = 1000 + torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    assert squared_distances(x, x).min().item() >= 1e-30


def test_moment_distance_rejects_a_set_of_one_sample():
    with pytest.raises(UsageError, match="a covariance needs 2 or more samples, not 1"):
        moment_distance([torch.zeros(1, 2), torch.zeros(3, 2)])


def test_moments_equal_numpys_unbiased_ones():
    x = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(mean(x), np.mean(x.numpy(), axis=0))
    np.testing.assert_allclose(variance(x), np.var(x.numpy(), axis=0, ddof=1))
    np.testing.assert_allclose(covariance(x), np.cov(x.numpy(), rowvar=False))


@pytest.mark.parametrize("statistic", [mean, variance, covariance])
def test_moments_of_bfloat16_samples_are_float32_under_autocast(statistic):
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(1)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = statistic(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, statistic(x.float()), rtol=0, atol=0)


@pytest.mark.parametrize(("statistic", "name"), [(variance, "a variance"), (covariance, "a covariance")])
def test_second_moments_of_one_sample_are_rejected(statistic, name):
    with pytest.raises(
        UsageError, match=f"{name} needs 2 or more samples, not 1; choose a larger batch_size"
    ):
        statistic(torch.zeros(1, 3))
