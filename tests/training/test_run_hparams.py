from dataclasses import replace

import pytest

from domainbed.training.config import TrainConfig
from domainbed.training.run_hparams import resolved_hparams

GOOD = {"dataset": "Debug28", "algorithm": "ERM", "test_envs": [0]}


def test_hparams_are_default_random_or_overridden():
    default = resolved_hparams(TrainConfig(**GOOD))
    random = resolved_hparams(TrainConfig(**GOOD, hparams_seed=1))
    other_trial = resolved_hparams(TrainConfig(**GOOD, hparams_seed=1, trial_seed=1))
    assert len({default["lr"], random["lr"], other_trial["lr"]}) == 3
    assert resolved_hparams(TrainConfig(**GOOD, hparams_seed=1, hparams='{"lr": 0.5}')) == random | {
        "lr": 0.5
    }


@pytest.mark.parametrize(
    ("algorithm", "name"), [("IRM", "irm_penalty_anneal_iters"), ("Fishr", "penalty_anneal_iters")]
)
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_default_and_random_warm_ups_are_scaled_with_the_number_of_updates(algorithm, name, seed):
    plain = TrainConfig(dataset="Debug28", algorithm=algorithm, hparams_seed=seed, steps=600)
    scaled = replace(plain, scale_warmups=True)
    before, after = resolved_hparams(plain), resolved_hparams(scaled)
    for count in (name, "linear_steps"):
        assert after.pop(count) == int(before.pop(count) * 600 / 5000)
    assert after == before
    assert scaled.recorded()["scale_warmups"]


def test_a_warm_up_that_the_user_gives_is_not_scaled():
    config = TrainConfig(
        dataset="Debug28",
        algorithm="IRM",
        hparams='{"irm_penalty_anneal_iters": 190}',
        steps=600,
        scale_warmups=True,
    )
    assert resolved_hparams(config)["irm_penalty_anneal_iters"] == 190
