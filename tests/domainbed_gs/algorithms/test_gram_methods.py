import numpy as np
import pytest
import torch

from domainbed.errors import UsageError
from domainbed_gs import surgery

pytestmark = pytest.mark.usefixtures("float64")
"""In float32 the signs of a few gradients depend on the order of sums, which differs between processors."""


@pytest.fixture
def updated(make, minibatches, gradients_of, given_to_adam):
    """`updated(name, **hparams)`: the environments' gradients, what Adam got, and what was logged."""

    def update(name, **overrides):
        algorithm = make(name, **overrides)
        batches = minibatches()
        g = gradients_of(algorithm, batches)
        returned = algorithm.update(batches)
        return g, given_to_adam(algorithm), returned

    return update


@pytest.mark.parametrize(
    ("name", "overrides", "rule"),
    [
        ("PCGrad", {"order": "fixed"}, lambda gram: surgery.pcgrad_weights(gram, [[1, 2], [0, 2], [0, 1]])),
        ("GradVac", {"order": "fixed"}, lambda gram: surgery.pcgrad_weights(gram, [[1, 2], [0, 2], [0, 1]])),
        ("CAGrad", {"cagrad_c": 0.4}, lambda gram: surgery.cagrad_weights(gram, 0.4, "none")),
        (
            "CAGrad",
            {"cagrad_rescale": "one_plus_c2"},
            lambda gram: surgery.cagrad_weights(gram, 0.5, "one_plus_c2"),
        ),
        ("MGDA", {}, surgery.mgda_weights),
        ("IMTLG", {}, surgery.imtlg_weights),
        ("AlignedMTL", {"aligned_scale": "median"}, lambda gram: surgery.aligned_mtl_weights(gram, "median")),
        ("UPGrad", {}, surgery.upgrad_weights),
        ("DualProj", {}, surgery.dual_proj_weights),
        ("NashMTL", {"nash_length": "solution"}, lambda gram: surgery.nash_mtl_weights(gram, None)),
    ],
)
def test_the_network_gets_what_the_function_says(updated, name, overrides, rule):
    g, found, returned = updated(name, **overrides)
    weights = rule((g.double() @ g.double().T).numpy())
    torch.testing.assert_close(found, surgery.combine(list(g), weights), rtol=1e-6, atol=1e-9)
    agree = g.sign().sum(0).abs() == 3
    assert returned["agreement"] == pytest.approx(agree.float().mean().item(), abs=1e-6)
    scale = 1 if name in ("PCGrad", "GradVac") else 3
    removed = 1 - scale * found.norm().item() / g.sum(0).norm().item()
    assert returned["removed"] == pytest.approx(removed, abs=1e-6)
    assert returned["fallback"] == 0
    assert set(returned) == {"loss", "agreement", "cosine", "removed", "fallback"}


def test_nash_direction_has_the_length_that_is_asked_for(updated):
    g, found, _ = updated("NashMTL")
    assert found.norm().item() == pytest.approx(g.mean(0).norm().item(), rel=1e-6)
    _, solution, _ = updated("NashMTL", nash_length="solution")
    assert solution.norm().item() == pytest.approx(3**0.5, rel=1e-6)
    reference = (3 * torch.linalg.norm(g @ g.T).item()) ** 0.5
    _, free, _ = updated("NashMTL", nash_length="reference", nash_max_norm=1e9)
    assert free.norm().item() == pytest.approx(reference, rel=1e-6)
    _, clipped, _ = updated("NashMTL", nash_length="reference", nash_max_norm=reference / 2)
    assert clipped.norm().item() == pytest.approx(reference / 2, rel=1e-6)


def test_nash_remembers_its_last_solution(make, minibatches):
    algorithm = make("NashMTL")
    assert algorithm.training_state()["values"]["alpha"] is None
    algorithm.update(minibatches())
    alpha = algorithm.training_state()["values"]["alpha"]
    assert alpha.shape == (3,)
    assert (alpha > 0).all()


def test_gradvac_remembers_the_cosines(make, minibatches, gradients_of):
    algorithm = make("GradVac", k=2, gradvac_beta=1.0)
    batches = minibatches(2)
    assert not algorithm.targets.any()
    g = gradients_of(algorithm, batches)
    algorithm.update(batches)
    cosine = torch.nn.functional.cosine_similarity(*g, dim=0).item()
    np.testing.assert_allclose(algorithm.targets, [[0, cosine], [cosine, 0]], atol=1e-5)


@pytest.mark.parametrize("beta", [-0.1, 1.1])
def test_gradvac_refuses_a_weight_outside_0_to_1(make, beta):
    with pytest.raises(UsageError, match="hyper-parameter gradvac_beta is from 0 to 1"):
        make("GradVac", gradvac_beta=beta)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("name", ["IMTLG", "NashMTL"])
def test_without_a_direction_the_mean_stands_in_and_is_counted(make, name, reduction):
    """Two opposite gradients for IMTL-G, none at all for Nash-MTL."""
    algorithm = make(name, k=2, reduction=reduction)
    size = 0.0 if name == "NashMTL" else 1.0
    opposite = [torch.full((4,), size), torch.full((4,), -size)]
    operation = algorithm.operate(iter(opposite), [])
    assert operation.stats["fallback"] == 1
    assert not operation.gradient.any()


def test_the_mean_that_stands_in_is_on_the_scale_asked_for(make):
    for reduction, expected in (("mean", 2.0), ("sum", 4.0)):
        algorithm = make("IMTLG", k=2, reduction=reduction)
        algorithm.weights = lambda gram: surgery.imtlg_weights(0 * gram)
        operation = algorithm.operate(iter([torch.full((4,), 1.0), torch.full((4,), 3.0)]), [])
        assert operation.gradient.tolist() == [expected] * 4
        assert operation.stats["removed"] == pytest.approx(0)
