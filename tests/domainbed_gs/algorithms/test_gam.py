"""GAM: golden updates in both conventions, and its identities with ERM, SAM and GSAM."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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


@pytest.mark.parametrize("convention", ["paper", "code"])
@pytest.mark.parametrize("problem", ["quadratic", "softmax"])
def test_golden_combinations(rule, vectors, problem, convention):
    case = vectors("field_networks")["gam"][problem]
    gradients = [torch.tensor(case[convention][name]) for name in ("g0", "g1", "g2", "g3")]
    found = rule("GAM", **hparams_of(case, convention)).combine(*gradients)
    np.testing.assert_allclose(found, case[convention]["update_gradient"], atol=1e-14)


def first_gradient(rule, seed, name, hparams):
    """What the optimizer gets in the first update of a small network."""
    method, draws = rule(name, **hparams), torch.Generator().manual_seed(seed)
    minibatches = [
        (torch.randn(4, 2, generator=draws), torch.randint(2, (4,), generator=draws)) for _ in range(3)
    ]
    method.update(minibatches)
    return torch.cat([parameter.grad.flatten() for parameter in method.network.parameters()])


@st.composite
def special_cases(draw):
    """Hyper-parameters of GAM, and the method with its hyper-parameters that it is then."""
    rho, radius = draw(st.floats(0, 0.2)), draw(st.floats(0.01, 0.2))
    alpha, beta, gamma = draw(st.floats(0, 1)), draw(st.floats(0, 1)), draw(st.floats(0, 0.5))
    names = ("rho", "gam_rho_prime", "gam_alpha", "gam_beta", "gam_gamma", "gam_h_minus")
    sam = {"rho": radius}
    return draw(
        st.sampled_from(
            [
                (dict(zip(names, (rho, 0.0, alpha, beta, gamma, "paper"), strict=True)), "ERM", {}),
                (dict(zip(names, (rho, radius, 1.0, beta, 0.0, "paper"), strict=True)), "SAM", sam),
                *(
                    (
                        dict(zip(names, (rho, radius, 1.0, 1.0, gamma, h_minus), strict=True)),
                        "GSAM",
                        sam | {"gsam_alpha": gamma},
                    )
                    for h_minus in ("paper", "code")
                ),
                (
                    dict(zip(names, (0.0, radius, alpha, beta, gamma, "paper"), strict=True)),
                    "GSAM",
                    sam | {"gsam_alpha": gamma},
                ),
                (
                    dict(zip(names, (0.0, radius, alpha, beta, gamma, "code"), strict=True)),
                    "GSAM",
                    sam | {"gsam_alpha": gamma * (2 - beta)},
                ),
            ]
        )
    )


@settings(max_examples=40)
@given(special_cases(), st.integers(0, 2**32))
def test_special_cases_are_methods_that_we_have(rule, case, seed):
    hparams, name, same = case
    found, expected = first_gradient(rule, seed, "GAM", hparams), first_gradient(rule, seed, name, same)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@given(st.integers(0, 2**32), st.floats(0, 1), st.sampled_from(["paper", "code"]))
@settings(max_examples=20)
def test_gamma_changes_nothing_along_h_plus(rule, seed, gamma, convention):
    gradients = torch.randn(4, 50, generator=torch.Generator().manual_seed(seed))
    h_plus = rule("GAM", gam_gamma=0.0).combine(*gradients)
    combined = rule("GAM", gam_gamma=gamma, gam_h_minus=convention).combine(*gradients)
    torch.testing.assert_close(combined @ h_plus, h_plus @ h_plus)


@settings(max_examples=10)
@given(st.integers(0, 2**32))
def test_the_weights_are_restored_to_the_bit_before_the_step(rule, seed):
    method, draws = rule("GAM"), torch.Generator().manual_seed(seed)
    method.optimizer = optim.SGD(method.network.parameters(), lr=0.0)
    before = [parameter.clone() for parameter in method.network.parameters()]
    method.update([(torch.randn(4, 2, generator=draws), torch.randint(2, (4,), generator=draws))])
    assert all(map(torch.equal, before, method.network.parameters()))


def test_running_statistics_change_once(rule):
    method = rule("GAM")
    method.network = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    method.optimizer = method.new_optimizer()
    method.update([(torch.randn(8, 2), torch.zeros(8, dtype=torch.int64))])
    assert method.network[0].num_batches_tracked == 1
