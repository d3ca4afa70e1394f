import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from domainbed.algorithms.transfer import Transfer, distance, proj
from domainbed.hparams_registry import default_hparams


def make(k=3, **overrides):
    torch.manual_seed(0)
    hparams = default_hparams("Transfer", "Debug28") | {"featurizer": "mlp", "mlp_width": 8} | overrides
    return Transfer((5,), 3, k, hparams)


def minibatches(k=3):
    torch.manual_seed(1)
    return [(torch.randn(6, 5), torch.randint(3, (6,))) for _ in range(k)]


def changed_parts(algorithm, data):
    """Whether an update changes the featurizer, and whether it changes the classifier."""
    parts = (algorithm.featurizer, algorithm.classifier)
    before = [[p.detach().clone() for p in part.parameters()] for part in parts]
    algorithm.update(data)
    return [
        not all(map(torch.equal, old, part.parameters())) for old, part in zip(before, parts, strict=True)
    ]


@pytest.mark.parametrize("gda", [False, True])
def test_the_network_is_trained_unless_upstream_gda_is_set(gda):
    assert changed_parts(make(gda=gda), minibatches()) == [True, True]
    assert changed_parts(make(gda=gda, upstream_gda=True), minibatches()) == [not gda, not gda]


def test_gda_takes_a_gradient_step_down_the_risk_and_then_the_gap():
    algorithm, data = make(gda=True, lr=0.1, t_lambda=0.5), minibatches()
    reference = make(gda=True, lr=0.1, t_lambda=0.5)
    parameters = [*reference.featurizer.parameters(), *reference.classifier.parameters()]
    x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
    for objective in (
        lambda: F.cross_entropy(reference.predict(x), y),
        lambda: 0.5 * reference.loss_gap(data),
    ):
        gradients = torch.autograd.grad(objective(), parameters, materialize_grads=True)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 0.1 * gradient
    algorithm.update(data)
    for parameter, expected in zip(
        [*algorithm.featurizer.parameters(), *algorithm.classifier.parameters()], parameters, strict=True
    ):
        torch.testing.assert_close(parameter, expected)


def test_the_gap_is_the_largest_minus_the_smallest_risk():
    algorithm, data = make(), minibatches()
    risks = [F.cross_entropy(algorithm.predict(x), y).item() for x, y in data]
    assert algorithm.loss_gap(data).item() == pytest.approx(max(risks) - min(risks))
    assert make(k=1).loss_gap(data[:1]).item() == 0


@pytest.mark.parametrize("delta", [1e-3, 0.05, 10.0])
def test_the_adversary_raises_the_gap_and_stays_in_its_ball(delta):
    algorithm, data = make(delta=delta, lr_d=0.5, lr=1e-6), minibatches()
    returned = algorithm.update(data)
    assert distance(algorithm.adv_classifier, algorithm.classifier).item() <= delta * (1 + 1e-4)
    stepped = algorithm.loss_gap(data).item()
    algorithm.adv_classifier.load_state_dict(algorithm.classifier.state_dict())
    assert stepped > algorithm.loss_gap(data).item()
    assert returned["gap"] >= 0


def test_steps_of_the_adversary_do_not_differentiate_the_featurizer():
    algorithm, data = make(), minibatches()
    algorithm.loss_gap(data, features_grad=False).backward()
    assert all(p.grad is None for p in algorithm.featurizer.parameters())
    assert any(p.grad is not None for p in algorithm.adv_classifier.parameters())


def two_networks(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), nn.Sequential(
        nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)
    )


def flat(network):
    return nn.utils.parameters_to_vector(network.parameters()).detach()


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_the_distance_is_that_of_the_weight_vectors(seed):
    first, second = two_networks(seed)
    assert distance(first, second).item() == pytest.approx((flat(first) - flat(second)).norm().item())
    assert distance(first, second) == distance(second, first)
    assert distance(first, first) == 0


def test_the_distance_includes_buffers():
    first, second = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    second.running_mean += 3
    second.num_batches_tracked += 4
    assert distance(first, second) == 5


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 10))
def test_networks_outside_the_ball_are_projected_and_others_unchanged(seed, delta):
    moved, centre = two_networks(seed)
    before, radius = copy.deepcopy(moved), distance(moved, centre).item()
    assert proj(delta, moved, centre) is moved
    if radius <= delta:
        assert torch.equal(flat(moved), flat(before))
        return
    assert distance(moved, centre).item() == pytest.approx(delta, rel=1e-4)
    # The projection is on the line to the centre.
    assert distance(before, moved).item() == pytest.approx(radius - delta, rel=1e-3, abs=1e-5)


def test_projection_onto_a_ball_of_radius_zero_gives_the_centre():
    moved, centre = two_networks(0)
    proj(0.0, moved, centre)
    assert torch.equal(flat(moved), flat(centre))
    proj(0.0, moved, centre)
    assert torch.equal(flat(moved), flat(centre))
