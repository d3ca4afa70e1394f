"""Learning rates over a run, for every algorithm."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn, optim

from domainbed.algorithms import ALGORITHMS, get_algorithm_class
from domainbed.algorithms.optimizers import optimizers_of, scale
from domainbed.algorithms.schedules import Schedule, make_schedule
from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams

SHAPE = (3, 16, 16)
CHOICE = {"optimizer": "SGD", "momentum": 0.9, "lr": 0.01}
SMALL_PENALTIES = {"IGA": {"penalty": 0.1}}
"""Without Adam, the default ones make weights infinite."""


def make(name, seed=0, **overrides):
    hparams = default_hparams(name, "Debug28") | {"featurizer": "small_cnn", "batch_size": 4} | overrides
    torch.manual_seed(seed)
    return get_algorithm_class(name)(SHAPE, 2, 3, hparams)


def minibatches(step):
    generator = torch.Generator().manual_seed(step)
    return [(torch.randn(4, *SHAPE, generator=generator), torch.tensor([0, 1, 0, 1])) for _ in range(3)]


def run(algorithm, schedule, steps):
    for step in steps:
        torch.manual_seed(step)
        np.random.seed(step)
        schedule.apply(algorithm, step)
        algorithm.update(minibatches(step))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_with_momentum_and_cosine_a_resumed_run_equals_the_uninterrupted_one_to_the_bit(identical, name):
    """Losses change, and optimizers are replaced, after the first of the remaining updates."""
    defaults = default_hparams(name, "Debug28")
    overrides = {key: 3 for key in defaults if key.endswith("anneal_iters")}
    overrides |= {key: 3 for key in ("iters", "eqrm_burnin_iters") if key in defaults}
    overrides |= {"linear_steps": 2} | (CHOICE if name != "GENIE" else {}) | SMALL_PENALTIES.get(name, {})
    schedule = make_schedule({"schedule": "cosine", "warmup_steps": 2}, n_steps=6)

    straight = make(name, **overrides)
    if not straight.TRAINS:
        with pytest.raises(UsageError, match=f"{name} has no optimizer whose learning rate could change"):
            schedule.check(straight)
        return
    schedule.check(straight)
    run(straight, schedule, range(2))
    state = copy.deepcopy(straight.training_state())
    run(straight, schedule, range(2, 5))
    second = make(name, seed=99, **overrides)
    second.load_training_state(state)
    run(second, schedule, range(2, 5))
    assert identical(straight.training_state(), second.training_state())
    assert all(torch.isfinite(value).all() for value in second.state_dict().values())
    for attribute, optimizer in optimizers_of(second):
        for group in optimizer.param_groups:
            if attribute not in second.FIXED_RATES:
                assert group["lr"] == group["initial_lr"] * schedule.factor(4), attribute
            else:
                assert "initial_lr" not in group


@given(n_steps=st.integers(1, 300), data=st.data())
def test_rates_rise_to_the_given_one_and_then_fall_to_zero(n_steps, data):
    warmup = data.draw(st.integers(0, n_steps - 1))
    cosine, constant = Schedule("cosine", warmup, n_steps), Schedule("none", warmup, n_steps)
    rising = [cosine.factor(step) for step in range(warmup)]
    assert rising == [(step + 1) / warmup for step in range(warmup)]
    falling = [cosine.factor(step) for step in range(warmup, n_steps)]
    assert falling[0] == 1
    assert all(a > b > 0 for a, b in itertools.pairwise(falling))
    assert abs(cosine.factor(n_steps)) < 1e-12
    assert [constant.factor(step) for step in range(n_steps)] == rising + [1.0] * (n_steps - warmup)


def test_the_cosine_is_that_of_torch():
    optimizer = optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7)
    for step in range(7):
        rate = 0.3 * Schedule("cosine", 0, 7).factor(step)
        assert math.isclose(optimizer.param_groups[0]["lr"], rate, rel_tol=1e-9)
        optimizer.step()
        scheduler.step()


def test_groups_keep_the_ratio_of_their_rates():
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = optim.SGD([{"params": weights[:1]}, {"params": weights[1:], "lr": 1.0}], lr=0.25)
    for factor in (0.5, 0.5, 1.0, 0.25):
        scale(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == [0.25 * factor, factor]


def test_an_optimizer_that_replaces_another_one_has_the_schedules_rate():
    algorithm = make("IRM", irm_penalty_anneal_iters=2)
    schedule, before = Schedule("cosine", 0, 5), algorithm.optimizer
    run(algorithm, schedule, range(3))
    assert algorithm.optimizer is not before
    assert algorithm.optimizer.param_groups[0]["lr"] == 1e-3 * schedule.factor(2)
    run(algorithm, schedule, range(3, 4))
    assert algorithm.optimizer.param_groups[0]["lr"] == 1e-3 * schedule.factor(3)


def test_the_trial_step_of_mldg_follows_the_schedule():
    algorithm = make("MLDG", **CHOICE, weight_decay=0.0)
    parameters = dict(algorithm.network.named_parameters())
    gradients = [torch.ones_like(parameter) for parameter in parameters.values()]
    algorithm.rate_factor = 0.5
    for name, stepped in algorithm._trial_step(parameters, gradients).items():
        torch.testing.assert_close(stepped, parameters[name] - 0.005)


def test_no_schedule_leaves_learning_rates_alone():
    assert make_schedule({}, n_steps=5) is None
    assert make_schedule({"schedule": "none"}, n_steps=5) is None
    assert make_schedule({"schedule": "mine", "warmup_steps": 9}, 5, own=["schedule", "warmup_steps"]) is None


def test_a_warm_up_as_long_as_the_run_is_an_error():
    with pytest.raises(UsageError, match="warmup_steps must be less than the run's 5 updates, not 5"):
        make_schedule({"warmup_steps": 5}, n_steps=5)


def test_a_method_with_a_schedule_of_its_own_refuses_another_one():
    algorithm = make("ERM")
    algorithm.own = optim.lr_scheduler.StepLR(algorithm.optimizer, 3)
    with pytest.raises(UsageError, match=r"ERM has a schedule of its own \(own\); leave out"):
        Schedule("cosine", 0, 5).check(algorithm)


def test_a_method_without_optimizers_refuses_a_schedule():
    algorithm = make("ERM")
    del algorithm.optimizer
    with pytest.raises(UsageError, match="ERM has no optimizer whose learning rate could change"):
        Schedule("cosine", 0, 5).check(algorithm)


def test_the_search_for_learning_rates_of_ermplusplus_excludes_a_schedule():
    algorithm = make("ERMPlusPlus", schedule="cosine")
    with pytest.raises(UsageError, match="set_lr changes the learning rate, and so do"):
        algorithm.set_lr(schedule=[[0.1]])
