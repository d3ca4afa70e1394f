"""IB_ERM and IB_IRM. Reference numbers are tested in test_updates, gradients in test_objectives."""

import pytest
import torch
import torch.nn.functional as F

from domainbed.algorithms import get_algorithm_class
from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams

SHAPE = (3, 16, 16)
both = pytest.mark.parametrize("name", ["IB_ERM", "IB_IRM"])


def make(name, **overrides):
    torch.manual_seed(0)
    hparams = default_hparams(name, "Debug28") | {"featurizer": "small_cnn"} | overrides
    return get_algorithm_class(name)(SHAPE, 3, 3, hparams)


def minibatches(*sizes):
    torch.manual_seed(1)
    return [((1 + e) * torch.randn(n, *SHAPE), torch.arange(n) % 3) for e, n in enumerate(sizes)]


def risk_and_variance(algorithm, batches):
    """Mean risk and mean variance of the features before an update."""
    with torch.no_grad():
        risks = [F.cross_entropy(algorithm.predict(x), y).item() for x, y in batches]
        variances = [algorithm.featurizer(x).var(dim=0).mean().item() for x, _ in batches]
    return sum(risks) / len(risks), sum(variances) / len(variances)


@pytest.mark.parametrize(("anneal", "weight"), [(1, 0.0), (0, 100.0)])
def test_ib_erm_adds_the_variance_after_the_annealing(anneal, weight):
    algorithm, batches = make("IB_ERM", ib_penalty_anneal_iters=anneal), minibatches(4, 6, 5)
    risk, variance = risk_and_variance(algorithm, batches)
    values = algorithm.update(batches)
    assert values["IB_penalty"] == pytest.approx(variance, rel=1e-4)
    assert values["loss"] == pytest.approx(risk + weight * variance, rel=1e-4)


@pytest.mark.parametrize(("irm", "ib"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_ib_irm_adds_the_variance_to_irms_loss(irm, ib):
    anneals = {"irm_penalty_anneal_iters": irm, "ib_penalty_anneal_iters": ib}
    algorithm, batches = make("IB_IRM", **anneals), minibatches(4, 6, 5)
    _, variance = risk_and_variance(algorithm, batches)
    values = algorithm.update(batches)
    alone = make("IRM", irm_penalty_anneal_iters=irm).update(batches)
    assert values["IRM_penalty"] == pytest.approx(alone["penalty"], rel=1e-4)
    expected = alone["loss"] + (100.0 if ib == 0 else 0.0) * variance
    assert values["loss"] == pytest.approx(expected, rel=1e-4)


def test_before_the_annealing_the_gradient_is_that_without_a_bottleneck():
    for name, plain in (("IB_ERM", "ERM"), ("IB_IRM", "IRM")):
        algorithm, other = make(name), make(plain)
        batches = minibatches(4, 4, 4)
        algorithm.update(batches)
        other.update(batches)
        for p, q in zip(algorithm.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad)


@pytest.mark.parametrize(("irm", "ib", "expected"), [(1, 3, {1, 3}), (2, 2, {2}), (9, 0, {0})])
def test_the_optimizer_is_replaced_when_either_weight_changes(irm, ib, expected):
    algorithm = make("IB_IRM", irm_penalty_anneal_iters=irm, ib_penalty_anneal_iters=ib)
    found = set()
    for update in range(5):
        before = algorithm.optimizer
        algorithm.update(minibatches(4, 4, 4))
        if algorithm.optimizer is not before:
            found.add(update)
    assert found == expected


@both
def test_copies_of_one_image_have_no_variance(name):
    x, _ = minibatches(1)[0]
    batches = [(x.expand(6, *SHAPE), torch.arange(6) % 3)] * 3
    assert make(name).update(batches)["IB_penalty"] == pytest.approx(0, abs=1e-10)


@both
def test_nll_equals_the_loss_as_in_upstream(name):
    values = make(name, ib_penalty_anneal_iters=0).update(minibatches(4, 4, 4))
    assert values["nll"] == values["loss"]


@both
def test_an_update_does_not_wait_for_the_device(name):
    """Tensors on the meta device have no values to read. Adam of torch 2.6 reads its number of steps."""
    with torch.device("meta"):
        algorithm = make(name, ib_penalty_anneal_iters=0, optimizer="SGD")
        algorithm.update(minibatches(4, 6, 5))
    assert algorithm.updates == 1


@both
def test_a_minibatch_of_one_sample_is_rejected(name):
    with pytest.raises(UsageError, match="a variance needs 2 or more samples, not 1; choose a larger"):
        make(name).update(minibatches(4, 1, 4))
