"""Lanczos's and Hutchinson's estimates on Hessians that are known."""

import numpy as np
import pytest
import torch

from domainbed_gs.curvature.hutchinson import estimate, quadratic_forms
from domainbed_gs.curvature.lanczos import largest_eigenvalue
from domainbed_gs.curvature.losses import MeanLoss
from domainbed_gs.curvature.vectors import dot, gaussian, norm, signs


def zeros(n):
    return torch.zeros(n, dtype=torch.float64)


def test_lanczos_finds_the_largest_eigenvalue_exactly_in_as_many_products_as_there_are_parameters(quadratic):
    found = largest_eigenvalue(quadratic([-5.0, -1, 0, 0.5, 2, 3]), zeros(6), (0,), tolerance=0)
    assert found.value == pytest.approx(3, rel=1e-10)
    assert found.error < 1e-6
    assert found.products == 6


def test_a_negative_eigenvalue_of_larger_size_is_not_the_largest(quadratic):
    assert largest_eigenvalue(quadratic([-9.0, 1, 1, 1]), zeros(4), (3,)).value == pytest.approx(1)
    assert largest_eigenvalue(quadratic([-9.0, -2, -4]), zeros(3), (3,)).value == pytest.approx(-2)


@pytest.mark.parametrize("seed", range(5))
def test_an_eigenvalue_lies_within_the_error_of_lanczos_and_none_above_the_truth_is_given(quadratic, seed):
    eigenvalues = np.linspace(-1, 4, 60) ** 3
    for most in (2, 5, 10, 20):
        found = largest_eigenvalue(quadratic(eigenvalues, seed), zeros(60), (seed,), most, tolerance=0)
        assert found.products == most
        assert found.value <= eigenvalues.max() + 1e-9
        assert np.abs(eigenvalues - found.value).min() <= found.error + 1e-9
    assert found.value == pytest.approx(eigenvalues.max(), rel=0.01)


def test_lanczos_stops_at_the_tolerance_and_in_an_invariant_subspace(quadratic):
    found = largest_eigenvalue(quadratic(np.linspace(0, 1, 200).tolist() + [10.0]), zeros(201), (1,))
    assert found.products < 12
    assert found.error <= 1e-3 * found.value
    flat = largest_eigenvalue(quadratic([0.0] * 5), zeros(5), (1,))
    assert (flat.value, flat.error, flat.products) == (0.0, 0.0, 1)
    assert largest_eigenvalue(quadratic([2.0] * 5), zeros(5), (1,)).value == pytest.approx(2)


def test_a_loss_that_is_not_finite_has_no_eigenvalue(quadratic):
    found = largest_eigenvalue(quadratic([1.0, float("inf")]), zeros(2), (0,))
    assert np.isnan([found.value, found.error]).all()


def test_hutchinson_is_exact_for_a_diagonal_hessian_and_has_no_error(quadratic):
    loss = quadratic([1.0, 2, 3])
    loss.hessian = torch.diag(torch.tensor([1.0, 2, 3], dtype=torch.float64))
    trace = estimate(quadratic_forms([loss], zeros(3), 4, (0,))[:, 0])
    assert trace.mean == pytest.approx(6)
    assert trace.error == pytest.approx(0, abs=1e-12)


def test_traces_are_within_their_errors(quadratic):
    loss = quadratic(np.linspace(-1, 5, 40))
    trace = estimate(quadratic_forms([loss], zeros(40), 400, (0,))[:, 0])
    assert abs(trace.mean - 80) < 3.5 * trace.error
    # The variance of z^T H z is 2 (|H|^2 - |diag H|^2).
    squares = 2 * float(loss.hessian.square().sum() - loss.hessian.diagonal().square().sum())
    assert trace.error == pytest.approx((squares / 400) ** 0.5, rel=0.15)


def test_losses_share_probes_so_the_forms_of_a_mean_are_means_of_the_forms(quadratic):
    losses = [quadratic([1.0, 4, 2, 7], seed) for seed in range(3)]
    forms = quadratic_forms([*losses, MeanLoss(losses)], zeros(4), 5, (9,))
    np.testing.assert_allclose(forms[:, 3], forms[:, :3].mean(axis=1))


def test_one_probe_has_no_error(quadratic):
    loss = quadratic([1.0, 4])
    assert np.isnan(estimate(quadratic_forms([loss], zeros(2), 1, (0,))[:, 0]).error)


def test_random_vectors_depend_on_their_counters_alone():
    like = torch.zeros(1000, dtype=torch.float32)
    assert torch.equal(signs(like, (1, 2)), signs(like, (1, 2)))
    assert not torch.equal(signs(like, (1, 2)), signs(like, (1, 3)))
    assert set(signs(like, (1, 2)).tolist()) == {-1.0, 1.0}
    assert abs(float(gaussian(like, (0,)).std()) - 1) < 0.1


def test_long_sums_are_taken_in_float64():
    ones = torch.full((2**24 + 3,), 1.0)
    assert dot(ones, ones) == 2**24 + 3
    assert norm(torch.tensor([3.0, 4.0])) == 5
