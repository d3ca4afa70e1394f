"""DANN and CDANN: who moves when, class weights, gradient penalty."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed.algorithms import get_algorithm_class
from domainbed.algorithms.adversarial import AbstractDANN, balanced_weights, gradient_penalty
from domainbed.algorithms.base import concatenate
from domainbed.algorithms.environments import environment_labels
from domainbed.hparams_registry import default_hparams

SMALL = {"mlp_width": 8, "mlp_depth": 3}


def make(name, **overrides):
    torch.manual_seed(0)
    hparams = default_hparams(name, "Debug28") | SMALL | overrides
    return get_algorithm_class(name)((5,), 3, 2, hparams)


def minibatches():
    torch.manual_seed(1)
    return [(torch.randn(n, 5), torch.arange(n) % 3) for n in (6, 4)]


def moved(algorithm, batches):
    """What one update returned, and which parts of the algorithm it changed."""
    before = {name: parameter.clone() for name, parameter in algorithm.named_parameters()}
    values = algorithm.update(batches)
    after = dict(algorithm.named_parameters())
    return list(values), {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize(
    ("name", "theirs"), [("DANN", {"discriminator"}), ("CDANN", {"discriminator", "class_embeddings"})]
)
def test_each_player_moves_in_its_turns_only(name, theirs, penalty):
    algorithm = make(name, d_steps_per_g_step=2, grad_penalty=penalty)
    turns = [moved(algorithm, minibatches()) for _ in range(6)]
    discriminators, generators = (["disc_loss"], theirs), (["gen_loss"], {"featurizer", "classifier"})
    assert turns == [
        *(discriminators, generators, discriminators),
        *(discriminators, generators, discriminators),
    ]


def test_the_discriminator_learns_and_the_generator_works_against_it():
    """lambda far above the classifier's loss: the generator's step raises the discriminator's loss."""

    def disc_loss(algorithm, batches):
        with torch.no_grad():
            logits = algorithm.discriminator(algorithm.featurizer(concatenate(batches)[0]))
        return F.cross_entropy(logits, environment_labels(batches)).item()

    algorithm, batches = make("DANN", **{"lambda": 100.0}), minibatches()
    losses = [disc_loss(algorithm, batches)]
    for _ in range(2):
        algorithm.update(batches)
        losses.append(disc_loss(algorithm, batches))
    assert losses[1] > losses[0]
    assert losses[2] < losses[1]


@pytest.mark.parametrize(("coefficient", "asked_for"), [(0.0, False), (0.5, True)])
def test_without_a_coefficient_no_gradient_penalty_is_computed(coefficient, asked_for):
    algorithm, batches = make("DANN", grad_penalty=coefficient), minibatches()
    features = torch.randn(10, 8)
    algorithm._discriminator_loss(features, concatenate(batches)[1], environment_labels(batches))
    assert features.requires_grad is asked_for


def test_gradient_penalty_of_a_linear_discriminator():
    """The gradient of cross-entropy by the input is W^T (p - onehot)."""
    torch.manual_seed(0)
    weight = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    inputs = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(6) % 3
    logits = inputs @ weight.T
    penalty = gradient_penalty(F.cross_entropy(logits, labels, reduction="none"), inputs)
    rows = (logits.softmax(dim=1) - F.one_hot(labels, 3)) @ weight
    expected = rows.square().sum(dim=1).mean()
    torch.testing.assert_close(penalty, expected)
    for tensor in (weight, inputs):
        got, wanted = (torch.autograd.grad(p, tensor, retain_graph=True)[0] for p in (penalty, expected))
        torch.testing.assert_close(got, wanted)


def test_class_weights_count_the_classes_up_to_the_largest_label():
    weights = balanced_weights(torch.tensor([3, 0, 0, 3, 0, 1]))
    torch.testing.assert_close(weights, torch.tensor([1 / 8, 1 / 12, 1 / 12, 1 / 8, 1 / 12, 1 / 4]))


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_every_class_that_occurs_has_the_same_weight(labels):
    weights = balanced_weights(torch.tensor(labels))
    assert weights.dtype == torch.float32
    for label in set(labels):
        total = weights[torch.tensor(labels) == label].sum().item()
        assert total == pytest.approx(1 / (max(labels) + 1), rel=1e-6)


def test_a_fork_may_choose_the_parts_of_cdann():
    hparams = default_hparams("DANN", "Debug28") | SMALL
    fork = AbstractDANN((5,), 3, 2, hparams, conditional=True, class_balance=False)
    assert (fork.conditional, fork.class_balance) == (True, False)
    turns = [moved(fork, minibatches()) for _ in range(2)]
    assert turns[1] == (["disc_loss"], {"discriminator", "class_embeddings"})
