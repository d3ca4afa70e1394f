"""RDM. Reference numbers are tested in test_updates, the gradient with the penalties in test_objectives."""

import contextlib

import pytest
import torch

from domainbed.algorithms import discrepancy, get_algorithm_class
from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams

SHAPE = (3, 16, 16)


def make(name="RDM", k=3, dataset="Debug28", **overrides):
    torch.manual_seed(0)
    hparams = default_hparams(name, dataset) | {"featurizer": "small_cnn"} | overrides
    return get_algorithm_class(name)(SHAPE, 3, k, hparams)


def minibatches(*sizes):
    torch.manual_seed(1)
    return [((1 + e) * torch.randn(n, *SHAPE), torch.arange(n) % 3) for e, n in enumerate(sizes)]


def test_before_the_annealing_the_update_is_erms_and_logs_the_penalties():
    algorithm, erm = make(), make("ERM")
    batches = minibatches(4, 4, 4)
    values = algorithm.update(batches)
    erm.update(batches)
    assert values["total_loss"] == values["erm_loss"]
    assert values["matching_penalty"] > 0
    assert values["variance_penalty"] > 0
    for p, q in zip(algorithm.parameters(), erm.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_infinite_penalties_are_not_added_before_the_annealing():
    """0 times infinity would be NaN."""
    algorithm = make()
    with torch.no_grad():
        algorithm.classifier.weight.mul_(1e25)
    values = algorithm.update(minibatches(4, 4, 4))
    assert torch.tensor(values["variance_penalty"]).isinf()
    assert torch.tensor(values["total_loss"]).isfinite()
    assert all(p.grad.isfinite().all() for p in algorithm.parameters())


@pytest.mark.parametrize("variance_weight", [0.0, 0.5])
def test_the_total_is_the_weighted_sum(variance_weight):
    algorithm = make(rdm_penalty_anneal_iters=1, variance_weight=variance_weight)
    batches = minibatches(4, 4, 4)
    algorithm.update(batches)
    values = algorithm.update(batches)
    assert values["update_count"] == 2
    assert values["rdm_lambda"] == 5.0
    expected = (
        values["erm_loss"] + 5 * values["matching_penalty"] + variance_weight * values["variance_penalty"]
    )
    assert values["total_loss"] == pytest.approx(expected, rel=1e-6)


def test_the_learning_rate_changes_after_the_annealing():
    algorithm = make(rdm_penalty_anneal_iters=2, rdm_lr=1e-5)
    rates = []
    for _ in range(4):
        algorithm.update(minibatches(4, 4, 4))
        rates.append(algorithm.optimizer.param_groups[0]["lr"])
    assert rates == [1e-3, 1e-3, 1e-5, 1e-5]


def test_the_worst_environment_is_found_at_any_position():
    batches = minibatches(4, 4, 4)
    algorithm = make(rdm_penalty_anneal_iters=0)
    forth = algorithm.update(batches)
    for order in ((1, 2, 0), (2, 0, 1)):
        rotated = make(rdm_penalty_anneal_iters=0).update([batches[i] for i in order])
        assert rotated == pytest.approx(forth, rel=1e-4)


def test_equal_environments_have_no_matching_penalty():
    (batch,) = minibatches(6)
    assert make().update([batch, batch])["matching_penalty"] == pytest.approx(0, abs=1e-5)


def test_an_update_does_not_wait_for_the_device(monkeypatch):
    """Tensors on the meta device have no values to read. That device has no autocast to disable, either."""
    monkeypatch.setattr(discrepancy, "full_precision", lambda like: contextlib.nullcontext())
    with torch.device("meta"):
        algorithm = make(rdm_penalty_anneal_iters=0, optimizer="SGD")
        algorithm.update(minibatches(4, 4, 4))
    assert algorithm.updates == 1


def test_invalid_environments_and_minibatches_are_rejected():
    with pytest.raises(UsageError, match="RDM needs at least 2 source environments, not 1"):
        make(k=1)
    with pytest.raises(UsageError, match="RDM needs minibatches of equal size, not 4, 5, 4"):
        make().update(minibatches(4, 5, 4))
    with pytest.raises(UsageError, match="a variance needs 2 or more samples, not 1"):
        make().update(minibatches(1, 1, 1))
