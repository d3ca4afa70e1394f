"""Fishr's penalty, its moving average, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F

from domainbed.algorithms import get_algorithm_class
from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams


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
def test_update_is_a_step_down_the_explicit_penalty(nonlinear, float64):
    """Three updates with the moving average, against autograd through each sample's own gradient."""
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


def test_penalty_is_zero_if_and_only_if_all_variances_are_equal(float64):
    (batch,) = minibatches((6,))
    assert make().update([batch] * 3)["penalty"] < 1e-30
    other = (batch[0], (batch[1] + 1) % 3)
    assert make().update([batch, batch, other])["penalty"] > 1e-6
    assert make(k=1).update([batch])["penalty"] == 0


def test_before_the_penalty_counts_the_averages_move_and_the_step_is_erms():
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
    """The uncorrected averages of all environments, as one tensor."""
    return torch.cat([m for own in algorithm.ema_per_domain for m in own.ema_data.values()], dim=1)


def test_averages_are_no_part_of_the_state_dict_but_of_the_training_state():
    algorithm, other = make(), make()
    algorithm.update(minibatches())
    assert not any("ema" in name for name in algorithm.state_dict())
    other.load_training_state(algorithm.training_state())
    again = minibatches(seed=2)
    assert other.update(again) == algorithm.update(again)
    assert other.update(again) != make().update(again)


def test_another_number_of_minibatches_is_refused():
    with pytest.raises(
        UsageError, match="each of its 3 source environments: it needs as many minibatches, not 2"
    ):
        make().update(minibatches((4, 4)))


def test_an_average_that_never_moves_is_refused():
    with pytest.raises(UsageError, match=r"ema below 1, not 1\.0"):
        make(ema=1.0)


def test_the_classifier_works_in_full_precision_under_autocast():
    plain, mixed = make(), make()
    for algorithm in (plain, mixed):
        algorithm.featurizer = torch.nn.Identity()
    x = [(torch.cat([x, x], dim=1), y) for x, y in minibatches()]
    plain.update(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed.update(x)
    assert torch.equal(averages(plain), averages(mixed))
