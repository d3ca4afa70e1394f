import sys

import pytest
import torch

from domainbed.errors import UsageError, describe
from domainbed_gs.algorithms.torchjd_objects import AGGREGATORS, TorchJDObject

pytestmark = pytest.mark.usefixtures("float64")
"""In float32 the rounding of sums, which differs between processors, would hide small errors."""


def update(algorithm, minibatches, given_to_adam):
    returned = algorithm.update(minibatches())
    return given_to_adam(algorithm), returned


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("hparams", [{}, {"aggregator": "UPGrad"}])
def test_by_default_it_is_our_upgrad(make, minibatches, given_to_adam, hparams, reduction):
    ours, by_name = (
        make("UPGrad", reduction=reduction),
        make("Aggregation", reduction=reduction, **hparams),
    )
    for _ in range(2):
        expected, logged = update(ours, minibatches, given_to_adam)
        found, returned = update(by_name, minibatches, given_to_adam)
        assert torch.equal(found, expected)
        assert returned == logged


@pytest.fixture(scope="module")
def torchjd():
    return pytest.importorskip("torchjd.aggregation")


def test_config_by_name(make, minibatches, gradients_of, given_to_adam, torchjd):
    algorithm = make("Aggregation", aggregator="torchjd:ConFIG")
    g = gradients_of(algorithm, minibatches())
    found, returned = update(algorithm, minibatches, given_to_adam)
    torch.testing.assert_close(found, torchjd.ConFIG()(g), rtol=1e-9, atol=1e-12)
    assert set(returned) == {"loss", "agreement", "zeros", "cosine"}
    _, logged = update(make("UPGrad"), minibatches, given_to_adam)
    assert returned == pytest.approx({name: logged[name] for name in returned})
    # The purpose of ConFIG: equal cosines with all gradients.
    cosines = torch.nn.functional.cosine_similarity(g, found[None])
    torch.testing.assert_close(cosines, cosines[:1].expand(3), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_arguments_and_reduction(make, minibatches, gradients_of, given_to_adam, torchjd, reduction):
    weights = [0.5, 0.25, 1.0]
    algorithm = make("Aggregation", aggregator=f"torchjd:Constant(weights={weights})", reduction=reduction)
    expected = torch.tensor(weights) @ gradients_of(algorithm, minibatches())
    found, _ = update(algorithm, minibatches, given_to_adam)
    scale = 3 if reduction == "sum" else 1
    torch.testing.assert_close(found, scale * expected, rtol=1e-9, atol=1e-12)


def test_random_aggregators_draw_from_the_runs_seed_and_the_update_alone(
    make, minibatches, given_to_adam, torchjd
):
    def gradients(draws_before, name="Random"):
        algorithm = make("Aggregation", aggregator=f"torchjd:{name}", lr=1e-12)
        torch.rand(draws_before)
        return [update(algorithm, minibatches, given_to_adam)[0] for _ in range(2)]

    gradients(0, "Mean")
    without_draws = torch.get_rng_state()
    first = gradients(0)
    assert torch.equal(torch.get_rng_state(), without_draws)
    again = gradients(5)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.allclose(first[0], first[1], rtol=1e-3)


def test_building_one_draws_nothing(make, torchjd, weights_of):
    plain = make("ERM", seed=5)
    algorithm = make("Aggregation", seed=5, aggregator="torchjd:Random")
    assert torch.equal(weights_of(plain), weights_of(algorithm))


@pytest.mark.parametrize("name", ["CAGrad", "GradVac", "AgrSum", "ERM"])
def test_another_method_of_ours_by_name_is_refused(make, name):
    with pytest.raises(
        UsageError, match=f"{name} is an algorithm of its own: .* --algorithm {name}"
    ) as raised:
        make("Aggregation", aggregator=name)
    assert "\n" not in describe(raised.value)


@pytest.mark.parametrize(
    ("aggregator", "message"),
    [
        ("UPgrad", "aggregator not found: UPgrad. Did you mean UPGrad"),
        ("torchjd:Confg", "torchjd has no aggregator 'Confg'. Did you mean ConFIG?"),
        ("torchjd:WeightedAggregator", "torchjd has no aggregator 'WeightedAggregator'. Known: AlignedMTL,"),
        ("torchjd:TrimmedMean", "argument: 'trim_number'); arguments are written as in"),
        ("torchjd:TrimmedMean(trim_number=2)", "cannot be used with 3 source environments"),
        ("torchjd:Mean(3)", "is not written as torchjd:ConFIG or torchjd:TrimmedMean(trim_number=1)"),
        ("torchjd:Mean(x=y)", "is not written as torchjd:ConFIG"),
        ("torchjd:", "is not written as torchjd:ConFIG"),
        ("torchjd:Constant(weights=[1.0])", "cannot be used with 3 source environments"),
        ("torchjd:GramianWeightedAggregator(gramian_weighting=Nothing())", "is not written as"),
    ],
)
def test_an_aggregator_that_cannot_be_used_gives_a_message_of_one_line(make, torchjd, aggregator, message):
    with pytest.raises(UsageError) as raised:
        make("Aggregation", aggregator=aggregator)
    assert message in describe(raised.value)
    assert "\n" not in describe(raised.value)


def test_without_torchjd_the_message_says_what_to_install(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)  # as an import system sees a missing one
    with pytest.raises(UsageError, match="needs the package torchjd; install it: pip install torchjd"):
        make("Aggregation", aggregator="torchjd:ConFIG")


STATEFUL = (
    "GradVac",
    "ExcessMTL(n_warmup_steps=1)",
    "ExcessMTL(robust_step_size=1.0)",
    "PCD",
    "GramianWeightedAggregator(gramian_weighting=CRMOGMWeighting(weighting=GradVacWeighting(), alpha=0.5))",
    "NashMTL",
)


@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem")  # cvxpy, of NashMTL's
@pytest.mark.parametrize("aggregator", STATEFUL)
def test_a_resumed_run_has_what_the_aggregator_remembered(
    make, minibatches, weights_of, torchjd, through_a_file, aggregator
):
    if aggregator == "NashMTL":
        pytest.importorskip("ecos")
    name = f"torchjd:{aggregator}"
    straight, first, second = (make("Aggregation", seed=seed, aggregator=name) for seed in (0, 0, 9))
    forgetful = make("Aggregation", aggregator=name)
    for step in range(6):
        torch.manual_seed(step)
        straight.update(minibatches(seed=step))
        torch.manual_seed(step)
        (first if step < 3 else second).update(minibatches(seed=step))
        if step == 2:
            second.load_training_state(through_a_file(first.training_state()))
            first.update(minibatches(seed=9))  # must not change what was saved
            forgetful.load_training_state(through_a_file(second.training_state()))
            forgetful.aggregator = make("Aggregation", aggregator=name).aggregator
        elif step > 2:
            torch.manual_seed(step)
            forgetful.update(minibatches(seed=step))
    assert torch.equal(weights_of(second), weights_of(straight))
    assert not torch.equal(weights_of(forgetful), weights_of(straight))


def test_what_is_remembered_follows_the_gradients_to_their_device_unless_it_belongs_to_the_cpu(torchjd):
    """GradVac and PCD of TorchJD compute on the CPU, whatever the gradients' device."""
    meta = torch.device("meta")
    for name, moves in (("ExcessMTL", True), ("GradVac", False), ("PCD", False)):
        aggregator = TorchJDObject(f"torchjd:{name}", AGGREGATORS, 3)
        aggregator(torch.eye(3))
        aggregator._place(meta)
        remembered = [
            buffer for module in aggregator._module.modules() for buffer in module.buffers(recurse=False)
        ]
        assert {buffer.device == meta for buffer in remembered} == {moves}
        keys = [vars(module).get("_state_key") for module in aggregator._module.modules()]
        assert any(isinstance(key, tuple) and meta in key for key in keys) == moves


def test_golden_excess_mtl_of_torchjd(rule, field, torchjd):
    golden = field["excessmtl"]
    method = rule("Aggregation", aggregator="torchjd:ExcessMTL(robust_step_size=1.0)")
    for jacobian, expected in zip(golden["jacobians"], golden["torchjd_eta1"], strict=True):
        matrix = torch.tensor(jacobian, dtype=torch.float64)
        weights = torch.tensor(expected["weights"], dtype=torch.float64)
        torch.testing.assert_close(method._direction(matrix), weights @ matrix)
