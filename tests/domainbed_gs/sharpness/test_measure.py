"""Sharpness of small networks in float64 against dense Hessians, and random directions."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from domainbed_gs.curvature.losses import SampleLoss
from domainbed_gs.curvature.network import ParameterVector
from domainbed_gs.sharpness.directions import filter_normalised, losses_along
from domainbed_gs.sharpness.measure import Domain, measure_domains
from domainbed_gs.sharpness.settings import CURVES, SHARPNESS, Sharpness

EXACT = Sharpness(lanczos_steps=12, tolerance=1e-12, ascent_steps=4, probes=30, directions=2, points=5)


def linear_model(order=torch.arange):
    """A linear softmax model with two sources of different sizes and a target, in float64."""
    torch.manual_seed(3)
    network = nn.Linear(3, 3).double()
    parameters = ParameterVector(network, ["weight", "bias"])
    domains, data = [], []
    for role, name, n in (("source", "a", 7), ("source", "b", 4), ("target", "c", 6)):
        x, y = torch.randn(n, 3, dtype=torch.float64), torch.randint(3, (n,))
        positions = order(n)
        domains.append(Domain(role, name, n, SampleLoss(network, parameters, x[positions], y[positions], 3)))
        data.append((x, y))
    return network, parameters, domains, data


@pytest.fixture(scope="module")
def measured():
    network, parameters, domains, data = linear_model()
    return network, parameters, data, measure_domains(domains, parameters, EXACT)


def dense_losses(network, parameters, data):
    """The pooled loss, and those of the environments, as functions of the vector."""

    def of(x, y):
        return lambda at: F.cross_entropy(functional_call(network, parameters.views(at), (x,)), y)

    own = [of(x, y) for x, y in data]
    return [lambda at: (own[0](at) + own[1](at)) / 2, *own]


def test_eigenvalues_traces_and_rises_are_those_of_dense_hessians(measured):
    network, parameters, data, found = measured
    at = parameters.values
    rows = found[SHARPNESS]
    assert [(row["role"], row["environment"], row["count"]) for row in rows] == [
        ("pooled", "", 11),
        ("source", "a", 7),
        ("source", "b", 4),
        ("target", "c", 6),
    ]
    for loss, row in zip(dense_losses(network, parameters, data), rows, strict=True):
        hessian = torch.autograd.functional.hessian(loss, at)
        gradient = torch.autograd.functional.jacobian(loss, at)
        assert row["loss"] == pytest.approx(float(loss(at)), rel=1e-12)
        assert row["gradient_norm"] == pytest.approx(float(gradient.norm()), rel=1e-10)
        assert row["eigenvalue"] == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-8)
        assert abs(row["trace"] - float(hessian.trace())) < 4 * row["trace_error"]
        step = at + EXACT.rho * gradient / gradient.norm()
        assert row["one_step_rise"] == pytest.approx(float(loss(step) - loss(at)), rel=1e-9)
        assert row["worst_rise"] >= row["one_step_rise"]


def test_the_pooled_row_is_the_mean_of_the_sources_where_it_has_to_be(measured):
    pooled, a, b, _ = measured[3][SHARPNESS]
    for name in ("loss", "trace", "pooled_one_step_rise", "pooled_worst_rise"):
        assert pooled[name] == pytest.approx((a[name] + b[name]) / 2, rel=1e-9), name
    assert pooled["pooled_one_step_rise"] == pytest.approx(pooled["one_step_rise"])
    assert pooled["pooled_worst_rise"] == pytest.approx(pooled["worst_rise"])
    # An environment's own direction raises its loss most (to first order).
    assert a["one_step_rise"] > a["pooled_one_step_rise"]
    assert pooled["worst_rise"] <= (a["worst_rise"] + b["worst_rise"]) / 2


def test_nothing_depends_on_the_order_of_samples(measured):
    _, parameters, domains, _ = linear_model(lambda n: torch.arange(n).flip(0).roll(2))
    again = measure_domains(domains, parameters, EXACT)
    for name in (SHARPNESS, CURVES):
        for row, other in zip(measured[3][name], again[name], strict=True):
            for key, value in row.items():
                if key not in ("eigenvalue_products", "eigenvalue_error"):
                    assert other[key] == (
                        pytest.approx(value, rel=1e-7) if isinstance(value, float) else value
                    )


def test_each_trial_has_random_vectors_of_its_own_which_its_methods_share():
    def traces(trial_seed):
        _, parameters, domains, _ = linear_model()
        found = measure_domains(domains, parameters, EXACT, trial_seed)
        return [row["trace"] for row in found[SHARPNESS]], [row["loss"] for row in found[CURVES]]

    assert traces(1) == traces(1)
    for own, other in zip(traces(1), traces(2), strict=True):
        assert own != other


def test_curves_pass_through_the_loss_and_have_every_domain(measured):
    rows = measured[3][CURVES]
    assert len(rows) == 4 * 2 * 5
    losses = {(row["role"], row["environment"]): row["loss"] for row in measured[3][SHARPNESS]}
    for row in rows:
        if row["distance"] == 0:
            assert row["loss"] == pytest.approx(losses[row["role"], row["environment"]])
    assert sorted({row["distance"] for row in rows}) == [-0.5, -0.25, 0, 0.25, 0.5]


def test_directions_have_the_lengths_of_the_filters_and_leave_biases_and_norms():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 4))
    with torch.no_grad():
        network[3].weight[2] = 0
    parameters = ParameterVector(network, [name for name, _ in network.named_parameters()])
    views = parameters.views(filter_normalised(parameters, (0, 1)))
    for name in ("0.weight", "3.weight"):
        lengths = [tensor.flatten(1).norm(dim=1) for tensor in (views[name], network.get_parameter(name))]
        torch.testing.assert_close(*lengths)
    assert not any(views[name].any() for name in ("0.bias", "1.weight", "1.bias", "3.bias"))
    other = filter_normalised(parameters, (0, 2))
    assert not torch.equal(other, filter_normalised(parameters, (0, 1)))
    assert torch.equal(other, filter_normalised(parameters, (0, 2)))


def test_losses_along_a_direction_of_a_quadratic_are_a_parabola(quadratic):
    loss = quadratic([1.0, 2, 3])
    at = torch.zeros(3, dtype=torch.float64)
    direction = torch.ones(3, dtype=torch.float64)
    found = losses_along([loss], at, direction, [-1, 0, 1])[:, 0]
    curvature = float(direction @ loss.hessian @ direction)
    assert found[0] + found[2] - 2 * found[1] == pytest.approx(curvature)
