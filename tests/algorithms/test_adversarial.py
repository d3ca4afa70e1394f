"""DANN and CDANN: order of updates, class weights, gradient penalty."""

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


def changed_parts(algorithm, batches):
    """Names that one update returned, and parts of the algorithm that it changed."""
    before = {name: parameter.clone() for name, parameter in algorithm.named_parameters()}
    values = algorithm.update(batches)
    after = dict(algorithm.named_parameters())
    return list(values), {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize(
    ("name", "parts"), [("DANN", {"discriminator"}), ("CDANN", {"discriminator", "class_embeddings"})]
)
def test_discriminator_and_generator_updates_change_their_own_parts_only(name, parts, penalty):
    algorithm = make(name, d_steps_per_g_step=2, grad_penalty=penalty)
    updates = [changed_parts(algorithm, minibatches()) for _ in range(6)]
    discriminator, generator = (["disc_loss"], parts), (["gen_loss"], {"featurizer", "classifier"})
    assert updates == [discriminator, generator, discriminator] * 2


def test_generator_updates_raise_and_discriminator_updates_lower_the_discriminators_loss():
    """lambda is large, so the discriminator's loss dominates the generator's."""

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


@pytest.mark.parametrize(("coefficient", "differentiated"), [(0.0, False), (0.5, True)])
def test_the_gradient_penalty_is_computed_only_with_a_coefficient(coefficient, differentiated):
    algorithm, batches = make("DANN", grad_penalty=coefficient), minibatches()
    features = torch.randn(10, 8)
    algorithm._discriminator_loss(features, concatenate(batches)[1], environment_labels(batches))
    assert features.requires_grad is differentiated


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


def test_class_weights_use_the_largest_label_as_number_of_classes():
    weights = balanced_weights(torch.tensor([3, 0, 0, 3, 0, 1]))
    torch.testing.assert_close(weights, torch.tensor([1 / 8, 1 / 12, 1 / 12, 1 / 8, 1 / 12, 1 / 4]))


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_every_class_in_the_batch_has_the_same_weight(labels):
    weights = balanced_weights(torch.tensor(labels))
    assert weights.dtype == torch.float32
    for label in set(labels):
        total = weights[torch.tensor(labels) == label].sum().item()
        assert total == pytest.approx(1 / (max(labels) + 1), rel=1e-6)


def test_forks_can_combine_the_flags_of_cdann():
    hparams = default_hparams("DANN", "Debug28") | SMALL
    fork = AbstractDANN((5,), 3, 2, hparams, conditional=True, class_balance=False)
    assert (fork.conditional, fork.class_balance) == (True, False)
    updates = [changed_parts(fork, minibatches()) for _ in range(2)]
    assert updates[1] == (["disc_loss"], {"discriminator", "class_embeddings"})
