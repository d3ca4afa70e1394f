"""Fishr's penalty, its moving average, and its errors."""

import pytest
import torch
import torch.nn.functional as F

from domainbed.algorithms import get_algorithm_class
from domainbed.algorithms.fishr import MovingAverage, l2_between_dicts
from domainbed.errors import UsageError
from domainbed.hparams import override
from domainbed.hparams_registry import default_hparams, table


def make(k=3, **overrides):
    torch.manual_seed(0)
    hparams = default_hparams("Fishr", "Debug28") | {"mlp_width": 8} | overrides
    return get_algorithm_class("Fishr")((4,), 3, k, hparams)


def minibatches(sizes=(6, 4, 5), seed=1):
    torch.manual_seed(seed)
    return [(torch.randn(n, 4), torch.randint(3, (n,))) for n in sizes]


def explicit_variances(algorithm, x, y):
    """Biased variance (p,) over the samples of the classifier's gradient of each one's own loss."""
    parameters = list(algorithm.classifier.parameters())
    features = algorithm.featurizer(x)
    rows = []
    for a, b in zip(features, y, strict=True):
        loss = F.cross_entropy(algorithm.classifier(a[None]), b[None])
        gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.stack(rows).var(0, unbiased=False)


@pytest.mark.parametrize("nonlinear", [False, True])
def test_the_gradient_is_that_of_the_explicit_penalty(nonlinear, float64):
    """Three updates with the moving average, against autograd through per-sample gradients."""
    algorithm = make(nonlinear_classifier=nonlinear, penalty_anneal_iters=0, ema=0.9)
    past = [0.0, 0.0, 0.0]
    for step in range(3):
        batches = minibatches(seed=step)
        parameters = list(algorithm.network.parameters())
        averages = [
            0.1 * explicit_variances(algorithm, x, y) + 0.9 * old
            for (x, y), old in zip(batches, past, strict=True)
        ]
        past = [average.detach() for average in averages]
        corrected = torch.stack(averages) / 0.1
        penalty = (corrected - corrected.mean(0)).square().mean()
        x, y = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
        nll = F.cross_entropy(algorithm.predict(x), y)
        loss = nll + 1000 * penalty
        expected = torch.autograd.grad(loss, parameters)
        returned = algorithm.update(batches)
        assert returned == pytest.approx({"loss": loss.item(), "nll": nll.item(), "penalty": penalty.item()})
        for parameter, gradient in zip(parameters, expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-8, atol=1e-12)


def test_the_penalty_is_zero_if_and_only_if_all_variances_are_equal(float64):
    (batch,) = minibatches((6,))
    assert make().update([batch] * 3)["penalty"] < 1e-30
    other = (batch[0], (batch[1] + 1) % 3)
    assert make().update([batch, batch, other])["penalty"] > 1e-6
    assert make(k=1).update([batch])["penalty"] == 0


def test_without_the_penalty_the_update_is_erms_and_the_averages_change():
    algorithm, batches = make(penalty_anneal_iters=10), minibatches()
    torch.manual_seed(0)
    erm = get_algorithm_class("ERM")((4,), 3, 3, algorithm.hparams)
    returned = algorithm.update(batches)
    erm.update(batches)
    assert returned["loss"] == returned["nll"]
    assert returned["penalty"] > 0
    for ours, theirs in zip(algorithm.network.parameters(), erm.network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    first = averages(algorithm)
    algorithm.update(batches)
    assert (averages(algorithm) > first).all()


def averages(algorithm):
    """The uncorrected averages of all environments in one tensor."""
    return torch.cat([m for own in algorithm.ema_per_domain for m in own.ema_data.values()], dim=1)


def test_averages_are_in_the_training_state_and_not_in_the_state_dict():
    algorithm, other = make(), make()
    algorithm.update(minibatches())
    assert not any("ema" in name for name in algorithm.state_dict())
    other.load_training_state(algorithm.training_state())
    again = minibatches(seed=2)
    assert other.update(again) == algorithm.update(again)
    assert other.update(again) != make().update(again)


def test_another_number_of_minibatches_is_rejected():
    with pytest.raises(
        UsageError, match="each of 3 source environments and needs as many minibatches, not 2"
    ):
        make().update(minibatches((4, 4)))


def test_an_average_that_never_changes_is_rejected():
    with pytest.raises(UsageError, match=r"hyper-parameter ema must be less than 1, not 1\.0"):
        override({}, {"ema": 1.0}, table("Fishr"), "Debug28")


def test_the_classifier_works_in_full_precision_under_autocast():
    plain, mixed = make(), make()
    for algorithm in (plain, mixed):
        algorithm.featurizer = torch.nn.Identity()
    x = [(torch.cat([x, x], dim=1), y) for x, y in minibatches()]
    plain.update(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed.update(x)
    assert torch.equal(averages(plain), averages(mixed))


def test_the_corrected_average_is_the_newest_data_plus_a_multiple_of_the_past(float64):
    average = MovingAverage(0.9)
    first, second = torch.tensor([[1.0, 2.0]]), torch.tensor([[10.0, 0.0]])
    torch.testing.assert_close(average.update({"a": first})["a"], first)
    torch.testing.assert_close(average.update({"a": second})["a"], second + 9 * 0.1 * first)
    torch.testing.assert_close(average.ema_data["a"], 0.1 * second + 0.09 * first)


def test_without_correction_the_average_itself_is_returned(float64):
    average = MovingAverage(0.75, oneminusema_correction=False)
    assert average.update({"a": torch.ones(2, 2)})["a"].tolist() == [[0.25] * 4]
    assert average.update({"a": torch.ones(2, 2)})["a"].tolist() == [[0.4375] * 4]


def test_the_derivative_of_the_average_by_the_newest_data_is_one(float64):
    average = MovingAverage(0.9)
    for _ in range(3):
        data = torch.ones(3, requires_grad=True)
        average.update({"a": data})["a"].sum().backward()
        torch.testing.assert_close(data.grad, torch.ones(3))
        assert not average.ema_data["a"].requires_grad


def test_the_moving_average_restores_a_saved_state():
    average, other = MovingAverage(0.5), MovingAverage(0.5)
    average.update({"a": torch.ones(2)})
    other.load_state_dict(average.state_dict())
    state = other.state_dict()
    expected = average.update({"a": torch.zeros(2)})
    assert torch.equal(other.update({"a": torch.zeros(2)})["a"], expected["a"])
    assert state["updates"] == 1
    assert other.state_dict()["updates"] == average.state_dict()["updates"] == 2


def test_past_averages_are_converted_to_the_dtype_of_the_data():
    average = MovingAverage(0.5)
    average.update({"a": torch.ones(2)})
    assert average.update({"a": torch.ones(2, dtype=torch.float64)})["a"].dtype == torch.float64
    assert average.ema_data["a"][0, 0].item() == pytest.approx(0.75)


def test_l2_between_dicts_is_a_mean_over_all_entries():
    left = {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor(3.0)}
    right = {"a": torch.tensor(4.0), "b": torch.tensor([8.0, 5.0])}
    assert l2_between_dicts(left, right).item() == pytest.approx((49 + 9 + 1) / 3)
    with pytest.raises(AssertionError, match="2 and 1 tensors"):
        l2_between_dicts(left, {"a": left["a"]})
