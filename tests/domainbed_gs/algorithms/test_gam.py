"""GAM: golden updates in both conventions, and its identities with ERM, SAM and GSAM."""

import numpy as np
import pytest
import torch
from torch import nn, optim

pytestmark = pytest.mark.usefixtures("float64")


def hparams_of(case, convention):
    values = case["hparams"]
    return {
        "rho": values["rho"],
        "gam_rho_prime": values["rho_prime"],
        "gam_alpha": values["alpha"],
        "gam_beta": values["beta"],
        "gam_gamma": values["gamma"],
        "gam_h_minus": convention,
    }


@pytest.mark.parametrize("convention", ["paper", "code"])
def test_golden_update_of_a_quadratic(rule, vectors, convention):
    case = vectors("field_networks")["gam"]["quadratic"]
    matrix = torch.tensor(case["problem"]["A"])
    method = rule("GAM", **hparams_of(case, convention))
    theta = nn.Parameter(torch.tensor(case["problem"]["theta"]))
    method.network = nn.ParameterList([theta])
    method.sample_losses = lambda x, y: (theta @ matrix @ theta / 2)[None]
    method.loss_without_statistics = lambda x, y: theta @ matrix @ theta / 2
    method.optimizer = optim.SGD([theta], lr=case["hparams"]["lr"])
    method.update([(torch.zeros(1, 2), torch.zeros(1))])
    np.testing.assert_allclose(theta.grad, case[convention]["update_gradient"], atol=1e-11)
    np.testing.assert_allclose(theta.detach(), case[convention]["theta_after"], atol=1e-11)


@pytest.mark.parametrize("convention", ["paper", "code"])
def test_golden_update_of_a_linear_classifier(rule, vectors, convention):
    case = vectors("field_networks")["gam"]["softmax"]
    method = rule("GAM", **hparams_of(case, convention))
    method.network = nn.Linear(4, 3)
    theta = torch.tensor(case["problem"]["theta"])
    method.network.weight.data, method.network.bias.data = theta[:12].view(3, 4), theta[12:]
    method.optimizer = optim.SGD(method.network.parameters(), lr=case["hparams"]["lr"])
    minibatch = torch.tensor(case["problem"]["X"]), torch.tensor(case["problem"]["y"])
    returned = method.update([minibatch])
    after = torch.cat([parameter.detach().flatten() for parameter in method.network.parameters()])
    np.testing.assert_allclose(after, case[convention]["theta_after"], atol=1e-11)
    assert returned["loss"] == pytest.approx(case["problem"]["loss_value"], rel=1e-12)


@pytest.fixture
def gradient_of(make, minibatches, given_to_adam):
    """`gradient_of(name, **hparams)`: what the optimizer gets in the first update."""

    def gradient(name, **hparams):
        algorithm = make(name, **hparams)
        algorithm.update(minibatches())
        return given_to_adam(algorithm)

    return gradient


@pytest.mark.parametrize(
    ("hparams", "name", "same"),
    [
        ({"rho": 0.0, "gam_rho_prime": 0.0, "gam_gamma": 0.05}, "ERM", {}),
        ({"gam_rho_prime": 0.0, "gam_gamma": 0.0}, "ERM", {}),
        ({"gam_rho_prime": 0.05, "gam_alpha": 1.0, "gam_gamma": 0.0}, "SAM", {"rho": 0.05}),
        (
            {"gam_rho_prime": 0.05, "gam_alpha": 1.0, "gam_beta": 1.0, "gam_gamma": 0.3},
            "GSAM",
            {"rho": 0.05, "gsam_alpha": 0.3},
        ),
        (
            {
                "gam_rho_prime": 0.05,
                "gam_alpha": 1.0,
                "gam_beta": 1.0,
                "gam_gamma": 0.3,
                "gam_h_minus": "code",
            },
            "GSAM",
            {"rho": 0.05, "gsam_alpha": 0.3},
        ),
        (
            {"rho": 0.0, "gam_rho_prime": 0.05, "gam_gamma": 0.3},
            "GSAM",
            {"rho": 0.05, "gsam_alpha": 0.3},
        ),
        (
            {"rho": 0.0, "gam_rho_prime": 0.05, "gam_beta": 0.6, "gam_gamma": 0.3, "gam_h_minus": "code"},
            "GSAM",
            {"rho": 0.05, "gsam_alpha": 0.3 * (2 - 0.6)},
        ),
    ],
)
def test_special_cases_are_methods_that_we_have(gradient_of, hparams, name, same):
    found, expected = gradient_of("GAM", **hparams), gradient_of(name, **same)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_gamma_changes_nothing_along_h_plus(rule):
    torch.manual_seed(0)
    gradients = torch.randn(4, 50)
    h_plus = rule("GAM", gam_gamma=0.0).combine(*gradients)
    for gamma in (0.03, 1.0):
        combined = rule("GAM", gam_gamma=gamma).combine(*gradients)
        torch.testing.assert_close(combined @ h_plus, h_plus @ h_plus)


def test_the_weights_are_restored_to_the_bit_before_the_step(make, minibatches, weights_of):
    algorithm = make("GAM")
    algorithm.optimizer = optim.SGD(algorithm.network.parameters(), lr=0.0)
    before = weights_of(algorithm)
    algorithm.update(minibatches())
    assert torch.equal(weights_of(algorithm), before)


def test_running_statistics_change_once(rule):
    method = rule("GAM")
    method.network = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    method.optimizer = method.new_optimizer()
    method.update([(torch.randn(8, 2), torch.zeros(8, dtype=torch.int64))])
    assert method.network[0].num_batches_tracked == 1
