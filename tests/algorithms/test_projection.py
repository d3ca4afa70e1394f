import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from domainbed.algorithms.projection import distance, proj


def networks(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), nn.Sequential(
        nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)
    )


def flat(network):
    return nn.utils.parameters_to_vector(network.parameters()).detach()


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_distance_is_that_of_all_weights_as_one_vector(seed):
    first, second = networks(seed)
    assert distance(first, second).item() == pytest.approx((flat(first) - flat(second)).norm().item())
    assert distance(first, second) == distance(second, first)
    assert distance(first, first) == 0


def test_distance_counts_buffers_too():
    first, second = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    second.running_mean += 3
    second.num_batches_tracked += 4
    assert distance(first, second) == 5


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 10))
def test_what_is_outside_lands_on_the_ball_and_what_is_inside_stays(seed, delta):
    moved, centre = networks(seed)
    before, radius = copy.deepcopy(moved), distance(moved, centre).item()
    assert proj(delta, moved, centre) is moved
    if radius <= delta:
        assert torch.equal(flat(moved), flat(before))
        return
    assert distance(moved, centre).item() == pytest.approx(delta, rel=1e-4)
    # On the way from where it was to the centre.
    assert distance(before, moved).item() == pytest.approx(radius - delta, rel=1e-3, abs=1e-5)


def test_a_ball_of_radius_zero_is_its_centre():
    moved, centre = networks(0)
    proj(0.0, moved, centre)
    assert torch.equal(flat(moved), flat(centre))
    proj(0.0, moved, centre)
    assert torch.equal(flat(moved), flat(centre))
