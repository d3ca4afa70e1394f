"""Golden vectors and invariants of GGA-L."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import domainbed_gs.algorithms.gga_l as gga_l

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def with_noise(monkeypatch):
    """`with_noise(xi)`: GGA-L draws xi (P,)."""

    def use(xi):
        noise = torch.tensor(xi, dtype=torch.float64)
        monkeypatch.setattr(gga_l, "normal_parts", lambda like, seed: iter([(0, noise)]))

    return use


def test_golden(update_with, with_noise, field):
    for case in field["gga_l"]:
        with_noise(case["xi"])
        g = torch.tensor(field["gradients"][case["gradients"]]["g"], dtype=torch.float64)
        combined, returned = update_with(g, "GGAL", gga_gamma=case["gamma"])
        np.testing.assert_allclose(combined, case["gradient_out"], atol=1e-14)
        assert returned["noise"] == pytest.approx(case["alpha_code"], rel=1e-12)
        assert returned["cosine"] == pytest.approx(case["mean_cosine"], rel=1e-12)


def test_golden_step_of_a_linear_network(rule, with_noise, field):
    """The authors' update with their optimizer, plain descent."""
    case = field["gga_l_step"]
    with_noise(np.concatenate([np.ravel(part) for part in case["noise"]]))
    method = rule("GGAL", gga_gamma=case["gamma"])
    method.network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    for layer, values in zip(method.network, (case["W_featurizer"], case["W_classifier"]), strict=True):
        layer.weight = nn.Parameter(torch.tensor(values, dtype=torch.float64))
    method.loss_of = lambda x, y: F.cross_entropy(method.network(x), y)
    method.optimizer = torch.optim.SGD(method.network.parameters(), lr=case["lr_sgd"])
    minibatches = zip(torch.tensor(case["x"], dtype=torch.float64), torch.tensor(case["y"]), strict=True)
    returned = method.update(list(minibatches))
    after = torch.cat([parameter.detach().flatten() for parameter in method.network.parameters()])
    np.testing.assert_allclose(after, case["params_after_flat"], atol=1e-14)
    assert returned["loss"] == pytest.approx(case["loss"], rel=1e-12)
    assert returned["noise"] == pytest.approx(case["alpha"], rel=1e-12)


@settings(max_examples=20)
@given(st.data())
def test_without_gamma_and_with_identical_environments_it_is_erm(update_with, gradients, data):
    g = data.draw(gradients(2, 5))
    torch.testing.assert_close(update_with(g, "GGAL", gga_gamma=0.0)[0], g.mean(0))
    same = g[:1].repeat(len(g), 1)
    combined, returned = update_with(same, "GGAL", gga_gamma=1.0)
    if g[0].any():  # the cosine of gradients that are 0 is 0
        torch.testing.assert_close(combined, g[0])
        assert returned["noise"] == pytest.approx(0, abs=1e-12)


@settings(max_examples=40)
@given(st.data())
def test_the_noise_is_bounded_and_knows_no_lengths(update_with, gradients, data):
    g = data.draw(gradients(2, 5))
    lengths = torch.tensor(data.draw(st.lists(st.floats(0.1, 10), min_size=len(g), max_size=len(g))))
    noise = update_with(g, "GGAL", gga_gamma=0.5)[1]["noise"]
    assert -1e-12 <= noise <= 0.5 * len(g) / (len(g) - 1) + 1e-12
    assert update_with(lengths[:, None] * g, "GGAL", gga_gamma=0.5)[1]["noise"] == pytest.approx(
        noise, abs=1e-9
    )


def opposite(size):
    """Gradients (2, size) that are 0 but for one component."""
    g = torch.zeros(2, size, dtype=torch.float64)
    g[:, 0] = torch.tensor([1.0, -1.0])
    return g


def test_uniform_noise_is_that_of_the_papers_box(update_with):
    combined, returned = update_with(opposite(10_001), "GGAL", gga_gamma=0.1, gga_noise="uniform")
    noise = combined[1:] / returned["noise"]
    assert ((noise >= 0) & (noise < 1)).all()
    assert noise.mean().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_noise_has_the_standard_deviation_that_is_logged(update_with, reduction):
    """10^5 draws are within 1 %."""
    g = opposite(100_001)
    combined, returned = update_with(g, "GGAL", gga_gamma=0.1, reduction=reduction)
    assert returned["noise"] == pytest.approx(0.2)
    assert combined[1:].std().item() == pytest.approx(0.2 * (2 if reduction == "sum" else 1), rel=0.02)
    assert combined[1:].mean().abs() < 0.01
