"""What all gradient surgeries have in common."""

import pytest
import torch

from domainbed.errors import UsageError

SUMS = ("AgrSum", "AgrRand", "GradDrop", "PCGrad", "GradVac")
MEANS = ("CAGrad", "MGDA", "IMTLG", "NashMTL", "AlignedMTL", "UPGrad", "DualProj", "Aggregation")
METHODS = (*SUMS, *MEANS)

pytestmark = pytest.mark.usefixtures("float64")
"""In float32 the signs of a few gradients depend on the order of sums, which differs between processors."""


@pytest.mark.parametrize("name", METHODS)
def test_one_source_environment_is_plain_training(make, minibatches, given_to_adam, name):
    longer = {"cagrad_c": 0.0} if name == "CAGrad" else {}
    algorithm = make(name, k=1, **longer)
    returned = algorithm.update(minibatches(1))
    assert "cosine" not in returned
    erm = make("ERM", k=1)
    erm.update(minibatches(1))
    nonzero = given_to_adam(erm) != 0
    torch.testing.assert_close(
        given_to_adam(algorithm)[nonzero], given_to_adam(erm)[nonzero], rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("name", METHODS)
def test_identical_environments_give_k_times_or_once_the_gradient(make, minibatches, given_to_adam, name):
    """Agr-Rand has noise where the gradient is 0, and a CAGrad step is 1 + c long."""
    erm = make("ERM")
    erm.update(minibatches(1))
    expected = given_to_adam(erm) * (3 if name in SUMS else 1) * (1.5 if name == "CAGrad" else 1)
    algorithm = make(name)
    algorithm.update(minibatches(1) * 3)
    nonzero = expected != 0
    torch.testing.assert_close(given_to_adam(algorithm)[nonzero], expected[nonzero], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_sum_is_k_times_mean(make, minibatches, given_to_adam, name):
    found = {}
    for reduction in ("sum", "mean"):
        algorithm = make(name, reduction=reduction)
        returned = algorithm.update(minibatches())
        found[reduction] = given_to_adam(algorithm), returned["removed"]
    torch.testing.assert_close(found["sum"][0], 3 * found["mean"][0], rtol=1e-9, atol=1e-12)
    assert found["sum"][1] == pytest.approx(found["mean"][1])
    default = make(name)
    default.update(minibatches())
    of_rule = "sum" if name in SUMS else "mean"
    assert torch.equal(given_to_adam(default), found[of_rule][0])


@pytest.mark.parametrize("name", METHODS)
def test_frozen_parameters_stay_and_do_no_harm(make, minibatches, name):
    algorithm = make(name)
    frozen = next(algorithm.parameters()).requires_grad_(False)
    before = frozen.clone()
    algorithm.update(minibatches())
    assert torch.equal(frozen, before)


@pytest.mark.parametrize("name", METHODS)
def test_a_loss_that_is_not_finite_does_not_end_in_a_traceback(make, minibatches, name):
    algorithm = make(name)
    (x, y), *rest = minibatches()
    algorithm.update([(torch.full_like(x, torch.nan), y), *rest])


def test_all_methods_start_from_erms_weights(make, weights_of):
    erm = weights_of(make("ERM", seed=7))
    for name in METHODS:
        assert torch.equal(weights_of(make(name, seed=7)), erm)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("AgrSum", {"reduction": "max"}),
        ("AgrSum", {"wd": "none"}),
        ("AgrRand", {"sigma": "layer"}),
        ("PCGrad", {"wd": "masked"}),
        ("PCGrad", {"order": "x"}),
        ("GradVac", {"order": "x"}),
        ("CAGrad", {"cagrad_rescale": "half"}),
        ("AlignedMTL", {"aligned_scale": "max"}),
        ("NashMTL", {"nash_length": "long"}),
    ],
)
def test_a_choice_that_is_none_is_refused(make, name, overrides):
    with pytest.raises(UsageError, match=f"hyper-parameter {next(iter(overrides))} is one of"):
        make(name, **overrides)
