"""What all gradient surgeries have in common, and what their two bases do with a rule."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from domainbed.algorithms import get_algorithm_class
from domainbed.errors import UsageError
from domainbed.gradients.gram import NoDirection
from domainbed_gs.algorithms.cagrad import cagrad_weights
from domainbed_gs.algorithms.dual_proj import dual_proj_weights
from domainbed_gs.algorithms.mgda import mgda_weights
from domainbed_gs.algorithms.nash_mtl import nash_mtl_weights

COMPONENTWISE = ("AgrSum", "AgrRand", "GradDrop")
SUMS = (*COMPONENTWISE, "PCGrad", "GradVac")
MEANS = (
    "CAGrad",
    "MGDA",
    "IMTLG",
    "NashMTL",
    "AlignedMTL",
    "UPGrad",
    "DualProj",
    "Aggregation",
    "FairGrad",
    "GGAL",
)
OF_PARTS = ("MoDo", "SDMGrad")
OF_MATRIX = ("ExcessMTL",)
METHODS = (*SUMS, *MEANS, *OF_PARTS, *OF_MATRIX)
GRAM = METHODS[len(COMPONENTWISE) : -len(OF_MATRIX)]
ALL_SAMPLES = [name for name in METHODS if name != "SDMGrad"]
"""Methods whose direction has all samples in it."""
NOISY = {"AgrRand": {"sigma", "no_agreement"}, "GGAL": {"noise"}}
"""Method that adds noise to the combined gradient -> what it logs of it."""
WEIGHTS = {"ExcessMTL": {"largest_weight"}}
"""Method -> what it logs of its weights."""

pytestmark = pytest.mark.usefixtures("float64")
"""In float32 the rounding of sums, which differs between processors, would hide small errors."""


@pytest.mark.parametrize("name", COMPONENTWISE)
def test_masked_weight_decay_decays_the_weights_that_the_rule_moves_and_no_others(update_with, name):
    """All weights are 1, so decay adds `weight_decay` to the gradient of a weight."""
    g = torch.tensor([[1.0, 1, -2, 1, -1], [1, -1, -2, 2, 3]], dtype=torch.float64)
    moved = g.prod(0) > 0 if name != "GradDrop" else torch.ones(5, dtype=torch.bool)
    found = {wd: update_with(g, name, wd=wd, weight_decay=0.125)[0] for wd in ("coupled", "masked")}
    torch.testing.assert_close(found["masked"] - found["coupled"], 0.125 * moved.double())


@pytest.mark.parametrize("name", ALL_SAMPLES)
def test_one_source_environment_is_plain_training(make, minibatches, given_to_adam, name):
    hparams = {"cagrad_c": 0.0} if name == "CAGrad" else {}
    algorithm = make(name, k=1, **hparams)
    returned = algorithm.update(minibatches(1))
    assert "cosine" not in returned
    erm = make("ERM", k=1)
    erm.update(minibatches(1))
    nonzero = given_to_adam(erm) != 0
    torch.testing.assert_close(
        given_to_adam(algorithm)[nonzero], given_to_adam(erm)[nonzero], rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("name", ALL_SAMPLES)
def test_identical_environments_give_k_times_or_once_the_gradient(make, minibatches, given_to_adam, name):
    """Agr-Rand has noise where the gradient is 0, and a CAGrad step is 1 + c times as long."""
    erm = make("ERM")
    erm.update(minibatches(1))
    expected = given_to_adam(erm) * (3 if name in SUMS else 1) * (1.5 if name == "CAGrad" else 1)
    algorithm = make(name)
    returned = algorithm.update(minibatches(1) * 3)
    nonzero = expected != 0
    torch.testing.assert_close(given_to_adam(algorithm)[nonzero], expected[nonzero], rtol=1e-9, atol=1e-12)
    assert returned["cosine"] == pytest.approx(1)


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


@pytest.mark.parametrize("name", [name for name in METHODS if name not in OF_PARTS])
def test_updates_log_how_far_the_gradients_agree(
    make, minibatches, gradients_of, clear_signs, given_to_adam, name
):
    algorithm = make(name)
    batches = minibatches()
    g = gradients_of(algorithm, batches)
    losses = [torch.nn.functional.cross_entropy(algorithm.network(x), y).item() for x, y in batches]
    returned = algorithm.update(batches)
    assert returned["loss"] == pytest.approx(np.mean(losses))
    agree, conflict = clear_signs(g)
    rounding = 1e-9
    assert agree.double().mean() - rounding <= returned["agreement"]
    assert returned["agreement"] <= 1 - conflict.double().mean() + rounding
    cosines = [cosine_similarity(g[i], g[j], dim=0).item() for i, j in ((0, 1), (0, 2), (1, 2))]
    assert returned["cosine"] == pytest.approx(np.mean(cosines), abs=1e-6)
    if name not in NOISY:  # whose noise is not counted
        scale = 1 if name in SUMS else 3
        removed = 1 - scale * given_to_adam(algorithm).norm().item() / g.sum(0).norm().item()
        assert returned["removed"] == pytest.approx(removed, abs=1e-6)
    own = ({"fallback"} if name in GRAM else set()) | NOISY.get(name, set()) | WEIGHTS.get(name, set())
    assert set(returned) == {"loss", "agreement", "zeros", "cosine", "removed"} | own
    assert returned.get("fallback", 0) == 0


@pytest.mark.parametrize("name", METHODS)
def test_frozen_parameters_stay_as_they_are(make, minibatches, name):
    algorithm = make(name)
    frozen = next(algorithm.parameters()).requires_grad_(False)
    before = frozen.clone()
    algorithm.update(minibatches())
    assert torch.equal(frozen, before)


@pytest.mark.parametrize("name", METHODS)
def test_a_loss_that_is_not_finite_is_no_error(make, minibatches, name):
    algorithm = make(name)
    (x, y), *rest = minibatches()
    returned = algorithm.update([(torch.full_like(x, torch.nan), y), *rest])
    assert np.isnan(returned["loss"])


def test_all_methods_start_from_erms_weights(make, weights_of):
    erm = weights_of(make("ERM", seed=7))
    for name in METHODS:
        assert torch.equal(weights_of(make(name, seed=7)), erm)


@pytest.mark.parametrize("name", ["AgrRand", "GradDrop", "PCGrad", "GradVac"])
def test_random_numbers_depend_on_the_seed_and_the_update_alone(make, rule, minibatches, given_to_adam, name):
    def gradient(draws_before, seed=0):
        algorithm = make(name, seed=seed)
        torch.rand(draws_before)
        algorithm.update(minibatches())
        return given_to_adam(algorithm)

    assert torch.equal(gradient(0), gradient(7))
    seeded = [rule(name) for _ in range(3)]
    seeded[1].surgery_seed += 1
    seeded[2].updates += 1
    assert len({method.draw_seed() for method in seeded}) == 3


@pytest.mark.parametrize("name", ["AgrRand", "GradDrop", "GGAL"])
def test_every_update_draws_anew(make, minibatches, given_to_adam, name):
    algorithm = make(name)
    algorithm.optimizer = torch.optim.SGD(algorithm.network.parameters(), lr=0.0)
    algorithm.update(minibatches())
    first = given_to_adam(algorithm)
    algorithm.update(minibatches())
    assert not torch.equal(given_to_adam(algorithm), first)


@pytest.mark.parametrize(
    ("name", "hparams"),
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
        ("FairGrad", {"fairgrad_length": "long"}),
    ],
)
def test_an_unknown_choice_is_refused(rule, name, hparams):
    with pytest.raises(UsageError, match=f"hyper-parameter {next(iter(hparams))} must be one of"):
        rule(name, **hparams)


class TestGramMethods:
    @pytest.mark.parametrize(
        ("name", "hparams", "weights_of"),
        [
            ("CAGrad", {"cagrad_c": 0.4}, lambda gram: cagrad_weights(gram, 0.4)),
            ("CAGrad", {"cagrad_rescale": "one_plus_c2"}, lambda gram: cagrad_weights(gram, 0.5) / 1.25),
            ("MGDA", {}, mgda_weights),
            ("IMTLG", {}, None),
            ("AlignedMTL", {"aligned_scale": "median"}, None),
            ("UPGrad", {}, None),
            ("DualProj", {}, dual_proj_weights),
            ("NashMTL", {"nash_length": "solution"}, nash_mtl_weights),
            ("FairGrad", {"fairgrad_alpha": 5.0}, None),
            ("GGAL", {"gga_gamma": 0.0}, None),
        ],
    )
    def test_adam_gets_the_weighted_sum(
        self, make, rule, minibatches, gradients_of, given_to_adam, name, hparams, weights_of
    ):
        """The weights are those of the function named, or else of the method's `weights`."""
        algorithm = make(name, **hparams)
        batches = minibatches()
        g = gradients_of(algorithm, batches)
        weights = (weights_of or rule(name, **hparams).weights)((g @ g.T).numpy())
        algorithm.update(batches)
        torch.testing.assert_close(
            given_to_adam(algorithm), torch.from_numpy(weights) @ g, rtol=1e-6, atol=1e-9
        )

    @pytest.mark.parametrize("name", ["PCGrad", "GradVac"])
    def test_adam_gets_the_sum_of_changed_gradients(
        self, make, minibatches, gradients_of, given_to_adam, pcgrad_weights, others, name
    ):
        """GradVac's first update is PCGrad's."""
        algorithm = make(name, order="fixed")
        batches = minibatches()
        g = gradients_of(algorithm, batches)
        weights = pcgrad_weights((g @ g.T).numpy(), others(3))
        algorithm.update(batches)
        torch.testing.assert_close(
            given_to_adam(algorithm), torch.from_numpy(weights) @ g, rtol=1e-6, atol=1e-9
        )

    @pytest.mark.parametrize("reduction", ["sum", "mean"])
    @pytest.mark.parametrize(("name", "length"), [("IMTLG", 1.0), ("NashMTL", 0.0), ("FairGrad", 0.0)])
    def test_without_a_direction_the_mean_stands_in_and_is_counted(
        self, update_with, name, length, reduction
    ):
        """Of two opposite gradients for IMTL-G, and of zeros for Nash-MTL and FairGrad."""
        opposite = torch.full((2, 4), length) * torch.tensor([[1.0], [-1.0]])
        combined, returned = update_with(opposite, name, reduction=reduction)
        assert returned["fallback"] == 1
        assert not combined.any()

    @pytest.mark.parametrize("name", GRAM)
    @pytest.mark.parametrize(("reduction", "expected"), [("mean", 2.0), ("sum", 4.0)])
    def test_the_mean_that_stands_in_has_the_scale_asked_for(
        self, update_with, monkeypatch, name, reduction, expected
    ):
        def without_direction(self, gram):
            raise NoDirection("none")

        monkeypatch.setattr(get_algorithm_class(name), "weights", without_direction)
        g = torch.tensor([[1.0], [3.0]]).expand(2, 4)
        combined, returned = update_with(g, name, reduction=reduction)
        assert combined.tolist() == [expected] * 4
        assert returned["fallback"] == 1
        assert returned["removed"] == pytest.approx(0)

    @pytest.mark.parametrize("bad", [torch.nan, torch.inf])
    @pytest.mark.parametrize("name", GRAM)
    def test_the_mean_stands_in_for_gradients_that_are_not_finite(self, update_with, name, bad):
        combined, returned = update_with(torch.tensor([[1.0, 2.0], [bad, 1.0]]), name)
        assert returned["fallback"] == 1
        assert not combined[0].isfinite()
        assert combined[1].item() == pytest.approx(3.0 if name in SUMS else 1.5)

    def test_gradients_that_are_not_finite_leave_the_state_of_a_method_as_it_is(self, make, minibatches):
        (x, y), *rest = minibatches()
        batches = [(torch.full_like(x, torch.nan), y), *rest]
        gradvac, nash = make("GradVac"), make("NashMTL")
        gradvac.update(batches)
        assert not gradvac.targets.any()
        nash.update(batches)
        assert nash.alpha is None
