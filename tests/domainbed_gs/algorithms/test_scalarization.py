"""The mean by default, scalarizers of TorchJD by name, and what of them a resumed run has."""

import sys

import pytest
import torch

from domainbed.errors import UsageError, describe

pytestmark = pytest.mark.usefixtures("float64")

EACH = (
    "COSMOS(lambda_=0.5, weights=[0.2, 0.3, 0.5])",
    "Constant(weights=[0.2, 0.3, 0.5])",
    "DWA",
    "FAMO",
    "GeometricMean",
    "IMTLL",
    "PBI(theta=1.0, weights=[0.2, 0.3, 0.5])",
    "Random",
    "STCH(mu=0.1)",
    "Sum",
    "UW",
)


@pytest.fixture(scope="module")
def torchjd():
    return pytest.importorskip("torchjd.scalarization")


@pytest.mark.parametrize("scalarizer", ["Mean", "torchjd:Mean"])
def test_the_mean_is_erm(make, minibatches, given_to_adam, torchjd, scalarizer):
    method, erm = make("Scalarization", scalarizer=scalarizer), make("ERM")
    expected = erm.update(minibatches())
    assert method.update(minibatches())["objective"] == pytest.approx(expected["loss"])
    torch.testing.assert_close(given_to_adam(method), given_to_adam(erm))


@pytest.mark.parametrize("name", EACH)
def test_adam_gets_the_gradient_of_the_scalarizers_number(
    make, minibatches, given_to_adam, gradients_of, torchjd, name
):
    method = make("Scalarization", scalarizer=f"torchjd:{name}")
    batches = minibatches()
    g = gradients_of(method, batches)
    losses = torch.stack([torch.nn.functional.cross_entropy(method.predict(x), y) for x, y in batches])
    losses = losses.detach().requires_grad_()
    (weights,) = torch.autograd.grad(method.scalarize(losses), [losses])
    returned = method.update(batches)
    torch.testing.assert_close(given_to_adam(method), weights @ g, rtol=1e-6, atol=1e-9)
    assert returned["loss"] == pytest.approx(losses.mean().item())


def test_all_of_torchjds_are_tried(torchjd):
    listed = {name.split("(")[0] for name in EACH} | {"Mean", "Scalarizer"}
    assert listed == set(torchjd.__all__)


@pytest.mark.parametrize("name", EACH)
def test_a_resumed_run_equals_one_that_was_not_interrupted(
    make, minibatches, weights_of, through_a_file, torchjd, name
):
    hparams = {"scalarizer": f"torchjd:{name}", "scalarizer_epoch": 1}
    straight, first, second = (make("Scalarization", seed=seed, **hparams) for seed in (0, 0, 9))
    for step in range(6):
        torch.manual_seed(step)
        returned = straight.update(minibatches(seed=step))
        torch.manual_seed(step)
        resumed = (first if step < 3 else second).update(minibatches(seed=step))
        assert resumed == returned
        if step == 2:
            second.load_training_state(through_a_file(first.training_state()))
            first.update(minibatches(seed=9))  # must not change what was saved
    assert torch.equal(weights_of(second), weights_of(straight))


@pytest.mark.parametrize("name", ["UW", "IMTLL"])
def test_what_a_scalarizer_learns_is_learned_without_weight_decay(make, minibatches, torchjd, name):
    method = make("Scalarization", scalarizer=f"torchjd:{name}", weight_decay=0.1, lr=0.01)
    (learned,) = method.learned
    assert not learned.any()
    method.update(minibatches())
    torch.testing.assert_close(learned.abs(), torch.full((3,), 0.01), rtol=1e-3, atol=0)
    assert method.optimizer.param_groups[1]["weight_decay"] == 0


def test_famo_by_name_is_our_famo(make, minibatches, weights_of, torchjd):
    ours, by_name = make("FAMO"), make("Scalarization", scalarizer="torchjd:FAMO")
    for seed in range(4):
        for method in (ours, by_name):
            torch.manual_seed(seed)
            method.update(minibatches(seed=seed))
    torch.testing.assert_close(weights_of(by_name), weights_of(ours))
    assert by_name.scalarizer.learned() == []


def test_dwa_has_an_epoch_of_the_updates_asked_for(make, minibatches, torchjd):
    method = make("Scalarization", scalarizer="torchjd:DWA", scalarizer_epoch=2, lr=0.01)
    largest = [method.update(minibatches(seed=seed))["largest_weight"] for seed in range(5)]
    assert largest[:4] == pytest.approx([1 / 3] * 4)
    assert largest[4] > 1 / 3 + 1e-6


@pytest.mark.parametrize(
    ("scalarizer", "message"),
    [
        ("Men", "scalarizer not found: Men. Did you mean Mean"),
        ("FAMO", "scalarizer FAMO is an algorithm of its own: choose --algorithm FAMO"),
        ("torchjd:DWE", "torchjd has no scalarizer 'DWE'. Did you mean DWA?"),
        ("torchjd:STCH", "argument: 'mu'); arguments are written as in torchjd:STCH(mu=0.1)"),
        ("torchjd:Constant(weights=[1.0])", "cannot be used with 3 source environments"),
        ("torchjd:DWA(2)", "is not written as torchjd:DWA or torchjd:STCH(mu=0.1)"),
    ],
)
def test_a_scalarizer_that_cannot_be_used_gives_a_message_of_one_line(make, torchjd, scalarizer, message):
    with pytest.raises(UsageError) as raised:
        make("Scalarization", scalarizer=scalarizer)
    assert message in describe(raised.value)
    assert "\n" not in describe(raised.value)


def test_without_torchjd_the_message_says_what_to_install(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchjd.scalarization", None)
    with pytest.raises(UsageError, match="needs the package torchjd; install it: pip install torchjd"):
        make("Scalarization", scalarizer="torchjd:DWA")
