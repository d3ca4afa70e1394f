"""Golden vectors and invariants of GGA's search."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import domainbed_gs.algorithms.gga as gga
from domainbed_gs.algorithms.gga import lowest_cosine

pytestmark = pytest.mark.usefixtures("float64")

NOW = {"gga_start": 0, "gga_trials": 4, "gga_radius": 0.05}
"""Moves large enough to be told from rounding."""


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def test_golden_search_and_step(rule, field, monkeypatch):
    """The authors' code with 12 trials and given draws, on a linear network."""
    case = field["gga_search"]
    draws = iter(case["uniform_draws_in_0_1"])
    monkeypatch.setattr(gga, "uniform", lambda like, seed: tensor(next(draws)).flatten())
    method = rule("GGA", gga_start=0, gga_trials=case["trials"], gga_radius=case["radius"])
    method.featurizer, method.classifier = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    method.network = nn.Sequential(method.featurizer, method.classifier)
    for layer, values in zip(method.network, (case["W_featurizer"], case["W_classifier"]), strict=True):
        layer.weight = nn.Parameter(tensor(values))
    method.optimizer = torch.optim.SGD(method.network.parameters(), lr=case["lr_sgd"])
    measured, measure = [], method._measure

    def recorded(*arguments):
        measured.append(measure(*arguments))
        return measured[-1]

    method._measure = recorded
    returned = method.update(list(zip(tensor(case["x"]), torch.tensor(case["y"]), strict=True)))
    assert measured[0][0].item() == pytest.approx(case["start_loss"], rel=1e-12)
    assert measured[0][1].item() == pytest.approx(case["start_min_cosine"], rel=1e-12)
    for (loss, similarity), expected in zip(measured[1:], case["trace"], strict=True):
        assert loss.item() == pytest.approx(expected["loss"], rel=1e-10)
        assert similarity.item() == pytest.approx(expected["min_cosine"], rel=1e-10)
    accepted = [each for each in case["trace"] if each["accepted"]]
    assert returned["accepted"] == len(accepted)
    assert returned["lowest_cosine"] == pytest.approx(accepted[-1]["min_cosine"])
    after = torch.cat([parameter.detach().flatten() for parameter in method.network.parameters()])
    np.testing.assert_allclose(after, case["params_after_flat"], atol=1e-12)


def drawn(k, seed):
    """Minibatches of `k` environments for networks of two inputs."""
    draws = torch.Generator().manual_seed(seed)
    return [(torch.randn(5, 2, generator=draws), torch.randint(2, (5,), generator=draws)) for _ in range(k)]


@settings(max_examples=20)
@given(
    st.sampled_from([{"gga_radius": 0.0}, {"gga_trials": 0}, {"gga_start": 1}, {}]),
    st.integers(2, 4),
    st.integers(0, 2**32),
)
def test_without_moves_outside_the_window_and_with_one_environment_it_is_erm(
    rule, weights_of, hparams, k, seed
):
    k = k if hparams else 1
    method, erm = rule("GGA", k=k, **NOW | hparams), rule("ERM", k=k)
    for algorithm in (method, erm):
        returned = algorithm.update(drawn(k, seed))
        assert not returned.get("accepted")
    assert torch.equal(weights_of(method), weights_of(erm))


@settings(max_examples=20)
@given(st.integers(2, 4), st.integers(0, 2**32), st.sampled_from(["accepted", "always"]))
def test_accepted_points_have_higher_and_higher_cosines_and_the_classifier_stays(rule, k, seed, restart):
    method = rule("GGA", k=k, gga_trials=8, gga_radius=0.3, gga_restart=restart)
    classifier = [parameter.clone() for parameter in method.classifier.parameters()]
    measured, measure = [], method._measure

    def recorded(*arguments):
        measured.append([value.item() for value in measure(*arguments)])
        return tuple(map(torch.tensor, measured[-1]))

    method._measure = recorded
    found = method.search(drawn(k, seed))
    (loss, cosine), *trials = measured
    accepted = [cosine]
    for new_loss, new_cosine in trials:
        if new_cosine > accepted[-1] and new_loss - loss < 0.1:
            accepted.append(new_cosine)
            loss = new_loss
    assert found["accepted"] == len(accepted) - 1
    assert found["lowest_cosine"] == accepted[-1]
    assert all(map(torch.equal, classifier, method.classifier.parameters()))


def test_the_window_has_both_its_ends(make, minibatches):
    method = make("GGA", **NOW | {"gga_start": 1, "gga_length": 2, "gga_trials": 1})
    searches = ["accepted" in method.update(minibatches(n=2)) for _ in range(5)]
    assert searches == [False, True, True, True, False]


@pytest.mark.parametrize("restart", ["accepted", "always"])
def test_the_search_raises_the_lowest_cosine_by_moves_of_the_featurizer(
    make, minibatches, gradients_of, restart
):
    method = make("GGA", **NOW | {"gga_trials": 10, "gga_restart": restart})
    batches = minibatches()

    def lowest():
        g = gradients_of(method, batches)
        return lowest_cosine(g @ g.T).item()

    before, start = lowest(), [parameter.clone() for parameter in method.network.parameters()]
    found = method.search(batches)
    assert found["accepted"] > 0
    assert found["lowest_cosine"] == pytest.approx(lowest())
    assert lowest() > before
    moved = [(a - b).abs().max().item() for a, b in zip(method.network.parameters(), start, strict=True)]
    of_classifier = len(list(method.classifier.parameters()))
    assert not any(moved[-of_classifier:])
    assert all(moved[:-of_classifier])
    if restart == "always":
        assert max(moved) <= 0.05


def test_a_point_whose_loss_rises_too_much_is_not_accepted(make, minibatches, weights_of):
    method = make("GGA", **NOW | {"gga_trials": 10, "gga_slack": 1e-300})
    batches = minibatches()

    def loss():
        return sum(torch.nn.functional.cross_entropy(method.predict(x), y) for x, y in batches).item()

    before = loss()
    method.search(batches)
    assert loss() <= before


def test_the_search_leaves_the_statistics_of_batch_norms_alone(make, minibatches):
    method = make("GGA", featurizer="wide_resnet", **NOW | {"gga_trials": 1})
    before = [buffer.clone() for buffer in method.network.buffers()]
    method.search(minibatches(n=2))
    assert before
    assert all(torch.equal(*pair) for pair in zip(before, method.network.buffers(), strict=True))


def test_with_the_same_masks_no_move_changes_nothing(make, minibatches):
    """New masks change the cosine, so a search without moves accepts some of them."""
    accepted = {}
    for same in (True, False):
        method = make(
            "GGA",
            featurizer="mlp",
            mlp_dropout=0.5,
            gga_same_masks=same,
            **NOW | {"gga_radius": 0.0, "gga_trials": 10},
        )
        accepted[same] = method.search(minibatches())["accepted"]
    assert accepted[True] == 0
    assert accepted[False] > 0


def test_a_run_that_is_resumed_within_the_window_equals_one_that_was_not(make, minibatches, weights_of):
    straight, first, second = make("GGA", **NOW), make("GGA", **NOW), make("GGA", seed=9, **NOW)
    for seed in range(4):
        torch.manual_seed(seed)
        straight.update(minibatches(n=2, seed=seed))
        torch.manual_seed(seed)
        (first if seed < 2 else second).update(minibatches(n=2, seed=seed))
        if seed == 1:
            second.load_training_state(first.training_state())
    assert torch.equal(weights_of(second), weights_of(straight))


def test_the_lowest_cosine_counts_a_zero_gradient_as_0():
    g = tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    assert lowest_cosine(g @ g.T).item() == 0
    assert lowest_cosine(g[:2] @ g[:2].T).item() == pytest.approx(0.5**0.5)
