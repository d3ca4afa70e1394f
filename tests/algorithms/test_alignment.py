"""CORAL, MMD and CausIRL. Reference numbers are tested in test_updates, gradients in test_objectives."""

import numpy as np
import pytest
import torch

from domainbed.algorithms import get_algorithm_class
from domainbed.algorithms.alignment import AbstractMMD
from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams

SHAPE = (3, 16, 16)
PAIRWISE = ("CORAL", "MMD")
CAUSAL = ("CausIRL_CORAL", "CausIRL_MMD")


def make(name, k=3, **overrides):
    torch.manual_seed(0)
    hparams = default_hparams(name, "Debug28") | {"featurizer": "small_cnn"} | overrides
    return get_algorithm_class(name)(SHAPE, 3, k, hparams)


def minibatches(*sizes):
    torch.manual_seed(1)
    return [((1 + e) * torch.randn(n, *SHAPE), torch.arange(n) % 3) for e, n in enumerate(sizes)]


def same_weights(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("name", PAIRWISE)
def test_with_a_single_environment_the_update_is_erms(name):
    algorithm, erm = make(name, k=1), make("ERM", k=1)
    assert algorithm.update(minibatches(5))["penalty"] == 0
    erm.update(minibatches(5))
    assert same_weights(algorithm, erm)


@pytest.mark.parametrize("name", PAIRWISE + CAUSAL)
def test_a_penalty_of_weight_zero_is_logged_and_does_not_change_the_gradient(name):
    algorithm, erm = make(name, mmd_gamma=0.0), make("ERM")
    batches = minibatches(4, 4, 4)
    np.random.seed(0)  # with this seed, both parts of CausIRL are large enough
    assert algorithm.update(batches)["penalty"] > 0
    erm.update(batches)
    for p, q in zip(algorithm.parameters(), erm.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


@pytest.mark.parametrize("name", PAIRWISE)
def test_the_order_of_environments_does_not_matter(name):
    batches = minibatches(4, 6, 5)
    forth, back = (make(name).update(each) for each in (batches, batches[::-1]))
    assert forth == pytest.approx(back, rel=1e-4)


@pytest.mark.parametrize("name", PAIRWISE)
def test_equal_environments_have_no_penalty(name):
    batch = minibatches(6)[0]
    assert make(name).update([batch, batch, batch])["penalty"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", CAUSAL)
def test_one_number_is_drawn_for_each_environment_from_numpys_generator(name):
    batches = minibatches(4, 7, 5)
    algorithm = make(name)
    np.random.seed(3)
    before = torch.get_rng_state()
    algorithm.update(batches)
    following = np.random.random()
    assert torch.equal(torch.get_rng_state(), before)
    np.random.seed(3)
    for x, _ in batches:
        np.random.randint(0, len(x))
    assert following == np.random.random()


@pytest.mark.parametrize("name", CAUSAL)
def test_an_empty_part_gives_no_penalty(name):
    # For a minibatch of one sample, the cut is always at 0.
    assert make(name).update(minibatches(1, 1, 1))["penalty"] == 0


@pytest.mark.parametrize("name", CAUSAL)
def test_a_distance_that_overflows_gives_a_finite_penalty(name):
    np.random.seed(0)
    features = [torch.full((6, 4), 1e30).cumsum(0) for _ in range(3)]
    assert make(name).penalty(features).isfinite()


def test_upstreams_helper_methods():
    mmd, coral = make("MMD"), make("CORAL")
    assert (mmd.kernel_type, coral.kernel_type) == ("gaussian", "mean_cov")
    x, y = torch.randn(4, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(mmd.my_cdist(x, y), torch.cdist(x, y) ** 2)
    torch.testing.assert_close(
        mmd.gaussian_kernel(x, y, gamma=[0.5]), torch.exp(-0.5 * torch.cdist(x, y) ** 2)
    )
    expected = sum(s * mmd.gaussian_kernel(a, b).mean() for s, a, b in ((1, x, x), (1, y, y), (-2, x, y)))
    torch.testing.assert_close(mmd.mmd(x, y), expected)
    means = (x.mean(0) - y.mean(0)).square().mean()
    torch.testing.assert_close(coral.mmd(x, y), means + (x.T.cov() - y.T.cov()).square().mean())


def test_forks_choose_the_distance_by_a_flag():
    hparams = make("MMD").hparams
    torch.manual_seed(0)
    fork = AbstractMMD(SHAPE, 3, 3, hparams, gaussian=True)
    ours = make("MMD")
    batches = minibatches(4, 4, 4)
    assert fork.update(batches) == ours.update(batches)
    assert same_weights(fork, ours)


def test_coral_rejects_a_minibatch_of_one_sample():
    with pytest.raises(UsageError, match="a covariance needs 2 or more samples, not 1; choose a larger"):
        make("CORAL").update(minibatches(4, 1, 4))
