import itertools
import json
from pathlib import Path

import pytest
import torch

from domainbed.errors import UsageError
from domainbed.training import upstream_loaders
from domainbed.training.upstream_loaders import (
    FastDataLoader,
    InfiniteDataLoader,
    InfiniteDataLoaderWithoutReplacement,
)

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "loaders_and_splits.json").read_text())["loaders"]


def next_random_number():
    """The number that `torch.rand` returns next."""
    state = torch.get_rng_state()
    value = torch.rand(1).item()
    torch.set_rng_state(state)
    return value


@pytest.mark.parametrize(
    "case", VECTORS["cases"], ids=lambda c: f"{c['cls']}{'-weights' * bool(c['weights'])}"
)
def test_order_and_draws_equal_upstreams(case):
    torch.manual_seed(VECTORS["seed"])
    weights = () if case["cls"] == "FastDataLoader" else (case["weights"],)
    if case["weights"]:
        weights = (torch.tensor(case["weights"]),)
    loader = getattr(upstream_loaders, case["cls"])(
        range(case["length"]), *weights, case["batch_size"], VECTORS["num_workers"]
    )
    assert next_random_number() == case["rand_after_construction"]
    batches = [batch.tolist() for batch in itertools.islice(loader, len(case["batches"]))]
    assert batches == case["batches"]
    assert next_random_number() == case["rand_after_batches"]


@pytest.mark.parametrize("loader", [InfiniteDataLoader, InfiniteDataLoaderWithoutReplacement])
def test_a_dataset_smaller_than_a_minibatch_is_refused(loader):
    with pytest.raises(ValueError, match="13 samples cannot fill a minibatch of 64"):
        loader(range(13), None, 64, 0)
    with pytest.raises(UsageError, match="3 weights for 13 samples"):
        loader(range(13), [1.0, 2.0, 3.0], 4, 0)


def test_weighted_minibatches_can_exceed_the_dataset_only_with_replacement():
    drawn = next(iter(InfiniteDataLoader(range(3), [0.0, 1.0, 1.0], 64, 0)))
    assert set(drawn.tolist()) == {1, 2}
    with pytest.raises(UsageError, match="3 samples"):
        InfiniteDataLoaderWithoutReplacement(range(3), [1.0, 1.0, 1.0], 64, 0)


def test_endless_loaders_have_no_length_and_continue_in_a_new_iteration():
    loader = InfiniteDataLoaderWithoutReplacement(range(8), None, 4, 0)
    with pytest.raises(ValueError, match="no length"):
        len(loader)
    first, second = next(iter(loader)), next(iter(loader))
    assert sorted(torch.cat([first, second]).tolist()) == list(range(8))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_fast_data_loader_has_the_indices_of_the_last_batch(num_workers):
    loader = FastDataLoader(range(100, 120), 8, num_workers)
    assert len(loader) == 3
    for _ in range(2):
        seen = []
        for batch in loader:
            assert batch.tolist() == [100 + i for i in loader.indices]
            seen += loader.indices
        assert sorted(seen) == list(range(20))
        assert seen != list(range(20))


def test_fast_data_loader_in_order():
    loader = FastDataLoader(range(10), 4, 0, shuffle=False)
    assert [batch.tolist() for batch in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_an_empty_dataset_is_refused():
    with pytest.raises(UsageError, match="empty"):
        FastDataLoader([], 4, 0)
