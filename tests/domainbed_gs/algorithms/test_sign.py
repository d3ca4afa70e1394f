import pytest
import torch

from domainbed.errors import UsageError
from domainbed_gs.algorithms import AgrRand

pytestmark = pytest.mark.usefixtures("float64")
"""In float32 the signs of a few gradients depend on the order of sums, which differs between processors."""


def disagreement(gradients):
    return gradients.sign().sum(0).abs() != len(gradients)


@pytest.mark.parametrize(("reduction", "scale"), [("sum", 1), ("mean", 3)])
def test_agr_sum_gives_adam_the_masked_sum(make, minibatches, gradients_of, given_to_adam, reduction, scale):
    algorithm = make("AgrSum", reduction=reduction)
    batches = minibatches()
    g = gradients_of(algorithm, batches)
    returned = algorithm.update(batches)
    agree = ~disagreement(g)
    expected = torch.where(agree, g.sum(0), 0) / scale
    torch.testing.assert_close(given_to_adam(algorithm), expected, rtol=1e-9, atol=1e-12)
    assert returned["agreement"] == pytest.approx(agree.float().mean().item(), abs=1e-6)
    assert returned["removed"] == pytest.approx(
        1 - (expected * scale).norm().item() / g.sum(0).norm().item(), abs=1e-6
    )
    cosines = [
        torch.nn.functional.cosine_similarity(g[i], g[j], dim=0).item() for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    assert returned["cosine"] == pytest.approx(sum(cosines) / 3, abs=1e-6)


def test_masked_components_stay_without_momentum_or_decay(make, minibatches, gradients_of, weights_of):
    """Gradient surgery specification, A.9: with plain SGD, zero means frozen."""
    algorithm = make("AgrSum")
    algorithm.optimizer = torch.optim.SGD(algorithm.network.parameters(), lr=0.1)
    batches = minibatches()
    disagree = disagreement(gradients_of(algorithm, batches))
    before = weights_of(algorithm)
    algorithm.update(batches)
    moved = weights_of(algorithm) != before
    assert not moved[disagree].any()
    assert moved[~disagree].float().mean() > 0.9


@pytest.mark.parametrize("name", ["AgrSum", "AgrRand"])
def test_freeze_masked_leaves_disagreeing_weights_whatever_adam_remembers(
    make, minibatches, gradients_of, weights_of, name
):
    algorithm = make(name, freeze_masked=True, weight_decay=0.01)
    for seed in range(3):
        batches = minibatches(seed=seed)
        disagree = disagreement(gradients_of(algorithm, batches))
        before = weights_of(algorithm)
        algorithm.update(batches)
        moved = weights_of(algorithm) != before
        assert not moved[disagree].any()
        assert moved[~disagree].float().mean() > 0.9


@pytest.mark.parametrize("wd", ["coupled", "decoupled", "masked"])
def test_where_weight_decay_acts(make, minibatches, gradients_of, weights_of, wd):
    """On a component that disagrees: coupled decay goes through Adam, decoupled shrinks, masked leaves it."""
    algorithm = make("AgrSum", wd=wd, weight_decay=0.01, lr=1e-3)
    batches = minibatches()
    g = gradients_of(algorithm, batches)
    disagree = disagreement(g)
    assert disagree.sum() > 1000
    before = weights_of(algorithm)[disagree]
    algorithm.update(batches)
    step = weights_of(algorithm)[disagree] - before
    if wd == "masked":
        assert not step.any()
    elif wd == "decoupled":
        torch.testing.assert_close(step, -1e-3 * 0.01 * before, rtol=1e-6, atol=1e-12)
    else:
        large = before.abs() > 1e-3
        torch.testing.assert_close(step[large], -1e-3 * before[large].sign(), rtol=1e-2, atol=1e-6)


def test_agr_rand_with_a_sigma_for_each_tensor(make, minibatches):
    spreads = {}
    for sigma in ("tensor", "network"):
        algorithm = make("AgrRand", sigma=sigma)
        algorithm.update(minibatches())
        stds = [p.grad.std().item() for p in algorithm.network.parameters() if p.numel() > 1000]
        spreads[sigma] = max(stds) / min(stds)
    assert spreads["tensor"] > 1.5 * spreads["network"]


@pytest.mark.parametrize("name", ["AgrRand", "GradDrop"])
def test_noise_depends_on_the_seed_and_the_update_alone(make, minibatches, given_to_adam, name):
    def gradient(draws_before):
        algorithm = make(name)
        torch.rand(draws_before)
        algorithm.update(minibatches())
        return given_to_adam(algorithm)

    assert torch.equal(gradient(0), gradient(7))
    algorithm = make(name)
    algorithm.optimizer = torch.optim.SGD(algorithm.network.parameters(), lr=0.0)
    algorithm.update(minibatches())
    first = given_to_adam(algorithm)
    algorithm.update(minibatches())
    assert not torch.equal(given_to_adam(algorithm), first)


def test_agr_rand_counts_updates_without_agreement(make, minibatches):
    algorithm = make("AgrRand")
    assert algorithm.update(minibatches())["no_agreement"] == 0
    nothing = torch.zeros(1)
    gradient, stats = AgrRand.resolve(algorithm, nothing, None, lambda: torch.zeros(1, 2), [1])
    assert gradient.tolist() == [0]
    assert stats["no_agreement"] == 1
    assert stats["sigma"] == 0


def test_graddrop_keeps_one_sign_of_each_component(make, minibatches, gradients_of, given_to_adam):
    algorithm = make("GradDrop")
    batches = minibatches()
    g = gradients_of(algorithm, batches)
    returned = algorithm.update(batches)
    found = given_to_adam(algorithm)
    sides = torch.stack([g.clamp_min(0).sum(0), g.clamp_max(0).sum(0)])
    chosen = sides.gather(0, (found < 0).long()[None])[0]
    torch.testing.assert_close(found, chosen, rtol=1e-9, atol=1e-12)
    assert returned["removed"] == pytest.approx(1 - (found.norm() / g.sum(0).norm()).item(), abs=1e-6)


def test_all_that_leaks_is_the_sum(make, minibatches, gradients_of, given_to_adam):
    algorithm = make("GradDrop", leak=1.0)
    batches = minibatches()
    expected = gradients_of(algorithm, batches).sum(0)
    algorithm.update(batches)
    torch.testing.assert_close(given_to_adam(algorithm), expected, rtol=1e-9, atol=1e-12)
    with pytest.raises(UsageError, match="hyper-parameter leak is from 0 to 1"):
        make("GradDrop", leak=1.5)
