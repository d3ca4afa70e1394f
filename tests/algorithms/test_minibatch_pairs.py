import torch
from hypothesis import given
from hypothesis import strategies as st

from domainbed.algorithms.minibatch_pairs import random_pairs_of_minibatches, split_meta_train_test

sizes = st.lists(st.integers(1, 6), min_size=1, max_size=6)


def make(sizes):
    """Minibatch k has the value k in all inputs, and indices as labels."""
    return [(torch.full((n, 2), float(k)), torch.arange(n)) for k, n in enumerate(sizes)]


def environments(pair, sizes):
    """The two environments of a pair, after a check that both minibatches have the shorter length."""
    numbers = []
    for x, _ in pair:
        numbers.append(int(x[0, 0]))
        assert (x == x[0, 0]).all()
    n = min(sizes[k] for k in numbers)
    assert all(len(x) == n and y.tolist() == list(range(n)) for x, y in pair)
    return tuple(numbers)


@given(sizes, st.integers(0, 1000))
def test_random_pairs_follow_a_cyclic_permutation(sizes, seed):
    torch.manual_seed(seed)
    pairs = [environments(pair, sizes) for pair in random_pairs_of_minibatches(make(sizes))]
    torch.manual_seed(seed)
    order = torch.randperm(len(sizes)).tolist()
    assert pairs == [(order[i], order[(i + 1) % len(order)]) for i in range(len(order))]


@given(sizes, st.integers(1, 7), st.integers(0, 1000))
def test_meta_train_environments_are_paired_with_meta_test_environments_in_turn(sizes, num_meta_test, seed):
    torch.manual_seed(seed)
    pairs = [
        environments(pair, sizes) for pair in split_meta_train_test(make(sizes), num_meta_test=num_meta_test)
    ]
    after = torch.rand(1)
    torch.manual_seed(seed)
    order = torch.randperm(len(sizes)).tolist()
    assert torch.equal(torch.rand(1), after)  # nothing but one permutation is drawn
    train, test = order[: max(len(order) - num_meta_test, 0)], order[-num_meta_test:]
    assert pairs == [(i, test[k % num_meta_test]) for k, i in enumerate(train)]
