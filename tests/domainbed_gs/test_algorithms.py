import copy

import pytest
import torch

from domainbed.algorithms import get_algorithm_class
from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams
from domainbed_gs import surgery

SHAPE = (3, 28, 28)
METHODS = ("AgrSum", "AgrRand", "PCGrad")


def minibatches(k=3, n=6, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(n, *SHAPE, generator=generator), torch.randint(2, (n,), generator=generator))
        for _ in range(k)
    ]


def make(name, seed=0, **overrides):
    torch.manual_seed(seed)
    return get_algorithm_class(name)(SHAPE, 2, 3, default_hparams(name, "Debug28") | overrides)


def environment_gradients(algorithm, batches):
    """By autograd on a copy, one environment after the other."""
    network = copy.deepcopy(algorithm.network)
    rows = []
    for x, y in batches:
        network.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y).backward()
        rows.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    return torch.stack(rows)


def gradient_of(algorithm):
    return torch.cat([p.grad.flatten() for p in algorithm.network.parameters()])


def weights_of(algorithm):
    return torch.cat([p.detach().flatten() for p in algorithm.network.parameters()])


@pytest.mark.parametrize(("reduction", "scale"), [("sum", 1), ("mean", 3)])
def test_agr_sum_gives_adam_the_masked_sum(reduction, scale):
    algorithm = make("AgrSum", reduction=reduction)
    batches = minibatches()
    g = environment_gradients(algorithm, batches)
    returned = algorithm.update(batches)
    agree = g.sign().sum(0).abs() == 3
    expected = torch.where(agree, g.sum(0), 0) / scale
    torch.testing.assert_close(gradient_of(algorithm), expected, rtol=1e-4, atol=1e-7)
    assert returned["agreement"] == pytest.approx(agree.float().mean().item(), abs=1e-3)
    assert returned["removed"] == pytest.approx(
        1 - (expected * scale).norm().item() / g.sum(0).norm().item(), abs=1e-3
    )
    cosines = [
        torch.nn.functional.cosine_similarity(g[i], g[j], dim=0).item() for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    assert returned["cosine"] == pytest.approx(sum(cosines) / 3, abs=1e-5)


def test_masked_components_stay_without_momentum_or_decay():
    """Gradient surgery specification, A.9: with plain SGD, zero means frozen."""
    algorithm = make("AgrSum")
    algorithm.optimizer = torch.optim.SGD(algorithm.network.parameters(), lr=0.1)
    batches = minibatches()
    agree = environment_gradients(algorithm, batches).sign().sum(0).abs() == 3
    before = weights_of(algorithm)
    algorithm.update(batches)
    moved = weights_of(algorithm) != before
    assert not moved[~agree].any()
    assert moved[agree].float().mean() > 0.9


@pytest.mark.parametrize("name", ["AgrSum", "AgrRand"])
def test_freeze_masked_leaves_disagreeing_weights_whatever_adam_remembers(name):
    algorithm = make(name, freeze_masked=True, weight_decay=0.01)
    for seed in range(3):
        batches = minibatches(seed=seed)
        agree = environment_gradients(algorithm, batches).sign().sum(0).abs() == 3
        before = weights_of(algorithm)
        algorithm.update(batches)
        moved = weights_of(algorithm) != before
        # Signs of tiny gradients may differ between two ways to compute them.
        assert moved[~agree].float().mean() < 1e-3
        assert moved[agree].float().mean() > 0.9


@pytest.mark.parametrize("name", [*METHODS, "MLDG"])
def test_frozen_parameters_stay_and_do_no_harm(name):
    algorithm = make(name)
    frozen = algorithm.featurizer.conv1.weight.requires_grad_(False)
    before = frozen.clone()
    algorithm.update(minibatches())
    assert torch.equal(frozen, before)


def test_agr_rand_with_a_sigma_for_each_tensor():
    algorithm = make("AgrRand", sigma="tensor")
    algorithm.update(minibatches())
    stds = [p.grad.std().item() for p in algorithm.network.parameters() if p.numel() > 1000]
    one = make("AgrRand")
    one.update(minibatches())
    of_one = [p.grad.std().item() for p in one.network.parameters() if p.numel() > 1000]
    assert max(stds) / min(stds) > 1.5 * max(of_one) / min(of_one)


@pytest.mark.parametrize("wd", ["coupled", "decoupled", "masked"])
def test_where_weight_decay_acts(wd):
    """On a component that disagrees: coupled decay goes through Adam, decoupled shrinks, masked leaves it."""
    algorithm = make("AgrSum", wd=wd, weight_decay=0.01, lr=1e-3)
    batches = minibatches()
    disagree = environment_gradients(algorithm, batches).sign().sum(0).abs() != 3
    before = weights_of(algorithm)[disagree]
    algorithm.update(batches)
    step = weights_of(algorithm)[disagree] - before
    if wd == "masked":
        assert not step.any()
    elif wd == "decoupled":
        torch.testing.assert_close(step, -1e-3 * 0.01 * before, rtol=1e-2, atol=1e-7)
    else:
        large = before.abs() > 1e-3
        torch.testing.assert_close(step[large], -1e-3 * before[large].sign(), rtol=1e-2, atol=1e-6)


def test_pcgrad_on_the_network_equals_the_function():
    algorithm = make("PCGrad", order="fixed")
    batches = minibatches()
    g = environment_gradients(algorithm, batches)
    weights = surgery.pcgrad_weights((g.double() @ g.double().T).numpy(), [[1, 2], [0, 2], [0, 1]])
    returned = algorithm.update(batches)
    torch.testing.assert_close(
        gradient_of(algorithm), surgery.combine(list(g), weights), rtol=1e-4, atol=1e-6
    )
    assert returned["agreement"] == pytest.approx(
        (g.sign().sum(0).abs() == 3).float().mean().item(), abs=1e-3
    )


def test_agr_rands_noise_depends_on_the_seed_and_the_update_alone():
    def gradient(seed, draws_before):
        algorithm = make("AgrRand", seed=seed)
        torch.rand(draws_before)
        algorithm.update(minibatches())
        return gradient_of(algorithm)

    assert torch.equal(gradient(0, 0), gradient(0, 7))
    algorithm = make("AgrRand")
    algorithm.optimizer = torch.optim.SGD(algorithm.network.parameters(), lr=0.0)
    algorithm.update(minibatches())
    first = gradient_of(algorithm)
    algorithm.update(minibatches())
    assert not torch.equal(gradient_of(algorithm), first)


def test_agr_rand_counts_updates_without_agreement():
    algorithm = make("AgrRand")
    assert algorithm.update(minibatches())["no_agreement"] == 0
    consensus = surgery.sign_consensus(iter([torch.tensor([1.0]), torch.tensor([-1.0])]))
    gradient, stats = algorithm.resolve(consensus, surgery.agr_sum(consensus), [1])
    assert gradient.tolist() == [0]
    assert stats["no_agreement"] == 1
    assert stats["sigma"] == 0


@pytest.mark.parametrize("name", METHODS)
def test_one_source_environment_is_plain_training(name):
    algorithm = make(name)
    returned = algorithm.update(minibatches(1))
    assert "cosine" not in returned
    erm = make("ERM")
    erm.update(minibatches(1))
    agree = gradient_of(erm) != 0
    torch.testing.assert_close(gradient_of(algorithm)[agree], gradient_of(erm)[agree])


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("AgrSum", {"reduction": "max"}),
        ("AgrSum", {"wd": "none"}),
        ("PCGrad", {"wd": "masked"}),
        ("PCGrad", {"order": "x"}),
    ],
)
def test_a_choice_that_is_none_is_refused(name, overrides):
    with pytest.raises(UsageError, match=f"hyper-parameter {next(iter(overrides))} is one of"):
        make(name, **overrides)


def test_all_methods_start_from_erms_weights():
    erm = weights_of(make("ERM", seed=7))
    for name in METHODS:
        assert torch.equal(weights_of(make(name, seed=7)), erm)
