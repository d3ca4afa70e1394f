import random

import numpy as np
import pytest
import torch

from domainbed.seeds import Purpose, counter_seed, generator, seed_all, seed_hash


def test_seed_hash_equals_upstreams(vectors):
    cases = vectors("jobs")["seed_hash"]
    assert len(cases) == 11
    for case in cases:
        assert seed_hash(*case["args"]) == case["value"]


def test_counter_seeds_differ_and_fit_a_torch_seed():
    seeds = {counter_seed(i, j, k) for i in range(10) for j in range(10) for k in range(10)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert counter_seed(1, 23) != counter_seed(12, 3)


def test_counter_seeds_never_change():
    """They are part of every result: a new value would break the repeatability of old runs."""
    assert generator(1, 2).integers(1000, size=4).tolist() == EXPECTED


EXPECTED = [14, 60, 332, 771]


def test_purposes_keep_their_numbers():
    numbers = {purpose.name: purpose.value for purpose in Purpose}
    assert numbers == {
        "MINIBATCH": 0,
        "AUGMENTATION": 1,
        "EVALUATION": 2,
        "PREDICTION": 3,
        "UPDATE": 4,
        "GROUPING": 5,
        "PROBES": 6,
    }
    assert [counter_seed(3, purpose, 1) for purpose in Purpose] == SEEDS


SEEDS = [
    4700158633028311966,
    5842971948457200900,
    6527253182295518149,
    6757616901496938548,
    1156786037224444202,
    398460107012215196,
    2645982348655471378,
]


@pytest.mark.parametrize("seed", [0, 2**31 - 1, 2**62])
def test_seed_all_seeds_all_three(seed):
    def draws():
        seed_all(seed)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draws() == draws()
