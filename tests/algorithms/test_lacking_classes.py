"""Every registered algorithm where environments lack classes that others have."""

import itertools

import numpy as np
import pytest
import torch

from domainbed.algorithms import ALGORITHMS, get_algorithm_class
from domainbed.algorithms.adversarial import balanced_weights
from domainbed.algorithms.selfreg import same_class_partners
from domainbed.hparams_registry import default_hparams

LABELS = {
    "all": [[0, 1, 2]] * 3,
    "one lacks a class": [[0, 1, 2], [0, 1, 2], [0, 1]],
    "each lacks another class": [[0, 1], [1, 2], [0, 2]],
    "each has one class": [[0], [1], [2]],
    "a class that none has": [[0, 2]] * 3,
}


def minibatches(labels):
    """Three minibatches of eight images (1, 16, 16), with these labels in turn."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for number, inside in enumerate(labels):
        y = torch.tensor(list(itertools.islice(itertools.cycle(inside), 8)))
        x = torch.randn(8, 1, 16, 16, generator=generator) + y[:, None, None, None] + number
        made.append((x, y))
    return made


def hparams_of(name):
    thresholds = {key: 1 for key in default_hparams(name, "Debug28") if key.endswith("anneal_iters")}
    # MixStyle needs feature maps.
    featurizer = "small_cnn" if name == "MixStyle" else "mlp"
    small = {"featurizer": featurizer, "mlp_width": 8, "batch_size": 8}
    return default_hparams(name, "Debug28") | small | thresholds


def make(name, **more):
    torch.manual_seed(0)
    np.random.seed(0)
    return get_algorithm_class(name)((1, 16, 16), 3, 3, hparams_of(name) | more)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if "each" in kind else pytest.mark.slow) for kind in LABELS]
)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_updates_on_environments_that_lack_classes_are_finite_and_change_the_weights(name, kind):
    algorithm, batches = make(name), minibatches(LABELS[kind])
    before = [each.detach().clone() for each in algorithm.parameters()]
    for _ in range(2):
        values = algorithm.update(batches)
        assert all(np.isfinite(float(value)) for value in values.values()), values
    after = list(algorithm.parameters())
    assert all(torch.isfinite(each).all() for each in after)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)) == algorithm.TRAINS
    algorithm.eval()
    predictions = algorithm.predict(batches[0][0])
    assert predictions.shape == (8, 3)
    assert torch.isfinite(predictions).all()


@pytest.mark.parametrize("kind", LABELS)
def test_the_loss_is_the_cross_entropy_over_all_classes_whichever_an_environment_has(kind):
    algorithm, batches = make("ERM"), minibatches(LABELS[kind])
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    logits = algorithm.predict(x).detach().double().numpy()
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.log(chances[np.arange(len(y)), y.numpy()]).mean()
    assert float(algorithm.update(batches)["loss"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", LABELS)
def test_weights_by_class_balance_the_classes_that_are_there(kind):
    y = torch.cat([labels for _, labels in minibatches(LABELS[kind])])
    weights, classes = balanced_weights(y), y.unique()
    sums = [float(weights[y == label].sum()) for label in classes]
    assert sums == pytest.approx([1 / 3] * len(classes))


@pytest.mark.parametrize("kind", LABELS)
def test_partners_and_remixed_pairs_are_of_the_same_class(kind):
    y = torch.cat([labels for _, labels in minibatches(LABELS[kind])])
    order, partners, others = same_class_partners(y)
    assert torch.equal(y[order], y[order][partners])
    assert torch.equal(y[order], y[order][others])
    pairs = make("ADRMX", remix_within_class=True)._remix_pairs(y)
    assert y[pairs[:, 0]].tolist() == y[pairs[:, 1]].tolist() == y.unique().tolist()


def test_means_of_a_class_that_was_not_seen_stay_as_they_are():
    algorithm = make("RIDG")
    algorithm.update(minibatches([[0, 2]] * 3))
    assert algorithm.seen.tolist() == [True, False, True]
    assert algorithm.means.flatten(1).any(dim=1).tolist() == [True, False, True]
