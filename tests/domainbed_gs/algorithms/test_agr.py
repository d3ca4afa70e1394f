"""Golden vectors and invariants of Agr-Sum and Agr-Rand, and their updates of a network."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from domainbed.errors import UsageError, describe
from domainbed.gradients.random_numbers import normal_parts


def stacked_agr_sum(g):
    """Agr-Sum by its definition, of gradients (K, P)."""
    agree = g.sign().sum(0).abs() == len(g)
    return torch.where(agree, g.sum(0), 0)


@pytest.fixture(scope="module")
def agr_sum(rule):
    """`agr_sum(gradients)`: Agr-Sum's rule."""
    method = rule("AgrSum")
    return lambda g: method.combine(list(g))


def test_agr_sum_of_the_golden_example(agr_sum, example):
    assert agr_sum(example).tolist() == [6, 0, -4, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_agr_rand_sigma_of_the_golden_example(update_with, example, reduction):
    combined, returned = update_with(example, "AgrRand", reduction=reduction)
    assert returned["sigma"] == 5
    assert returned["no_agreement"] == 0
    scale = 1 if reduction == "sum" else 3
    torch.testing.assert_close(combined[[0, 2]], torch.tensor([6.0, -4.0], dtype=torch.float64) / scale)
    assert combined.all()


@pytest.mark.parametrize("name", ["AgrSum", "AgrRand"])
def test_zero_agrees_may_be_false_only(rule, name):
    rule(name, zero_agrees=False)
    with pytest.raises(
        UsageError, match="hyper-parameter zero_agrees must be one of False, not True"
    ) as raised:
        rule(name, zero_agrees=True)
    assert "\n" not in describe(raised.value)


class TestAgrSum:
    @given(st.data(), st.booleans())
    def test_it_equals_its_definition(self, gradients, agr_sum, data, single):
        g = data.draw(gradients())
        g = g.float() if single else g
        expected = stacked_agr_sum(g)
        torch.testing.assert_close(agr_sum(g), expected)
        assert torch.equal(agr_sum(g) != 0, expected != 0)

    @given(st.data(), st.integers(1, 5))
    def test_identical_gradients_give_k_times_the_gradient(self, gradients, agr_sum, data, k):
        g = data.draw(gradients(1, 1))
        torch.testing.assert_close(agr_sum(g.repeat(k, 1)), k * g[0])

    @given(st.data(), st.randoms())
    def test_it_does_not_depend_on_the_order_of_environments(self, gradients, agr_sum, data, random):
        g = data.draw(gradients(2))
        order = list(range(len(g)))
        random.shuffle(order)
        torch.testing.assert_close(agr_sum(g[order]), agr_sum(g))
        assert torch.equal(agr_sum(g[order]) != 0, agr_sum(g) != 0)

    @given(st.data())
    def test_it_is_and_mask_times_k_times_the_share_of_components_kept(self, gradients, agr_sum, rule, data):
        """AND-mask with tau = 1 (Parascandolo et al. 2020) divides by that share."""
        g = data.draw(gradients(2))
        masked, mask = rule("ANDMask", tau=1).combine(list(g))
        kept = mask.double().mean()
        and_mask = masked / (kept + 1e-10)
        torch.testing.assert_close(agr_sum(g), len(g) * kept * and_mask, rtol=1e-6, atol=1e-6)

    def test_tiny_gradients_count(self, agr_sum):
        g = torch.tensor([[1e-40, 1e-40, -1e-30], [1e-30, -1e-40, -1e-40]])
        assert torch.equal(agr_sum(g), stacked_agr_sum(g))
        assert (agr_sum(g) != 0).tolist() == [True, False, True]

    def test_signed_zeros_are_zeros_and_gradients_that_are_not_finite_stay_visible(self, agr_sum):
        inf, nan = torch.inf, torch.nan
        g = torch.tensor([[0.0, -0.0, 0.0, inf, inf, nan, 1.0], [0.0, -0.0, -1.0, 1.0, -inf, 1.0, nan]])
        combined = agr_sum(g)
        assert combined[:4].tolist() == [0, 0, 0, inf]
        assert combined[4:].isnan().all()


@pytest.mark.parametrize("name", ["AgrSum", "AgrRand"])
@given(data=st.data())
def test_where_all_agree_the_result_is_the_plain_sum(gradients, update_with, name, data):
    positive = data.draw(gradients()).abs() + 1
    combined, returned = update_with(positive, name)
    torch.testing.assert_close(combined, positive.sum(0))
    assert returned["agreement"] == 1
    assert returned["removed"] == pytest.approx(0, abs=1e-12)


class TestNoise:
    def test_conflicts_alone_get_noise_of_the_size_of_agreeing_components(self, update_with):
        torch.manual_seed(0)
        g = torch.randn(3, 200_000, dtype=torch.float64)
        combined, returned = update_with(g, "AgrRand")
        agree = stacked_agr_sum(g) != 0
        torch.testing.assert_close(combined[agree], g.sum(0)[agree])
        assert returned["sigma"] == pytest.approx(g.sum(0)[agree].abs().mean().item())
        noise = combined[~agree]
        assert noise.std().item() == pytest.approx(returned["sigma"], rel=0.01)
        assert noise.mean().item() == pytest.approx(0, abs=0.02 * returned["sigma"])
        assert returned["agreement"] == pytest.approx(2 ** (1 - 3), abs=0.005)

    @pytest.mark.parametrize("sigma", ["network", "tensor"])
    def test_without_agreement_there_is_no_noise(self, update_with, sigma):
        g = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
        combined, returned = update_with(g, "AgrRand", sigma=sigma)
        assert combined.tolist() == [0, 0]
        assert returned["no_agreement"] == 1
        assert returned["sigma"] == 0

    @pytest.mark.parametrize("wd", ["coupled", "masked"])
    def test_each_tensor_may_have_a_sigma_of_its_own(self, update_with, wd):
        """The sums are (2, 0, 4), (0, 0) and (0, 6), so the sigmas 3, 0 and 6; of the network it is 4."""
        g = torch.tensor([[1.0, 1, 2, 1, 1, 1, 3], [1, -1, 2, -1, -1, -1, 3]], dtype=torch.float64)
        decay = 0.125
        found, returned = update_with(
            g, "AgrRand", sizes=[3, 2, 2], sigma="tensor", wd=wd, weight_decay=decay
        )
        same_noise, of_network = update_with(g, "AgrRand", sizes=[3, 2, 2])
        assert of_network["sigma"] == 4
        assert returned["sigma"] == pytest.approx((3 * 3 + 2 * 0 + 2 * 6) / 7)
        factors = torch.tensor([1, 3 / 4, 1, 0, 0, 6 / 4, 1], dtype=torch.float64)
        of_decay = decay * torch.tensor([1, 0, 1, 0, 0, 0, 1]) * (wd == "masked")
        torch.testing.assert_close(found, factors * same_noise + of_decay)
        assert same_noise.all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("sigmas", [[3.0], [3.0, 4.0, 5.0, 6.0, 7.0]])
    def test_noise_is_added_to_zeros_alone(self, rule, dtype, sigmas):
        smallest = torch.finfo(dtype).smallest_normal / 4
        values = torch.tensor([1.0, 0.0, -0.0, smallest, -2.0], dtype=dtype)
        sigma = torch.tensor(sigmas).squeeze()
        found = values.clone()
        rule("AgrRand").engine.add_noise_where_zero(found, sigma, seed=1)
        ((_, noise),) = normal_parts(values, seed=1)
        assert torch.equal(found, torch.where(values == 0, noise * sigma, values))
        assert found[[1, 2]].all()


on_a_network = pytest.mark.usefixtures("float64")


@on_a_network
@pytest.mark.parametrize(("reduction", "scale"), [("sum", 1), ("mean", 3)])
def test_agr_sum_gives_adam_the_masked_sum(
    make, minibatches, gradients_of, clear_signs, given_to_adam, reduction, scale
):
    algorithm = make("AgrSum", reduction=reduction)
    batches = minibatches()
    g = gradients_of(algorithm, batches)
    agree, conflict = clear_signs(g)
    returned = algorithm.update(batches)
    found = given_to_adam(algorithm)
    torch.testing.assert_close(found[agree], g.sum(0)[agree] / scale, rtol=1e-9, atol=1e-12)
    assert not found[conflict].any()
    removed = 1 - found.norm().item() * scale / g.sum(0).norm().item()
    assert returned["removed"] == pytest.approx(removed, abs=1e-6)


@on_a_network
def test_masked_components_stay_without_momentum_or_decay(
    make, minibatches, gradients_of, clear_signs, weights_of
):
    """With plain gradient descent a component of 0 leaves its weight as it is."""
    algorithm = make("AgrSum")
    algorithm.optimizer = torch.optim.SGD(algorithm.network.parameters(), lr=0.1)
    batches = minibatches()
    agree, conflict = clear_signs(gradients_of(algorithm, batches))
    before = weights_of(algorithm)
    algorithm.update(batches)
    moved = weights_of(algorithm) != before
    assert not moved[conflict].any()
    assert moved[agree].double().mean() > 0.9


@on_a_network
@pytest.mark.parametrize("name", ["AgrSum", "AgrRand"])
def test_freeze_masked_leaves_conflicting_weights_as_they_are_whatever_adam_remembers(
    make, minibatches, gradients_of, clear_signs, weights_of, name
):
    algorithm = make(name, freeze_masked=True, weight_decay=0.01)
    for seed in range(3):
        batches = minibatches(seed=seed)
        agree, conflict = clear_signs(gradients_of(algorithm, batches))
        before = weights_of(algorithm)
        algorithm.update(batches)
        moved = weights_of(algorithm) != before
        assert not moved[conflict].any()
        assert moved[agree].double().mean() > 0.9


@on_a_network
@pytest.mark.parametrize("wd", ["coupled", "decoupled", "masked"])
def test_weight_decay_of_conflicting_components(make, minibatches, gradients_of, clear_signs, weights_of, wd):
    """Coupled decay goes through Adam, decoupled decay shrinks the weight, masked decay leaves it."""
    algorithm = make("AgrSum", wd=wd, weight_decay=0.01, lr=1e-3)
    batches = minibatches()
    _, conflict = clear_signs(gradients_of(algorithm, batches))
    assert conflict.sum() > 1000
    start = weights_of(algorithm)
    algorithm.update(batches)
    step, before = (weights_of(algorithm) - start)[conflict], start[conflict]
    if wd == "masked":
        assert not step.any()
    elif wd == "decoupled":
        torch.testing.assert_close(step, -1e-3 * 0.01 * before, rtol=1e-6, atol=1e-12)
    else:
        large = before.abs() > 1e-3
        torch.testing.assert_close(step[large], -1e-3 * before[large].sign(), rtol=1e-2, atol=1e-6)


@on_a_network
def test_masked_decay_adds_to_agreeing_components(
    make, minibatches, gradients_of, clear_signs, weights_of, given_to_adam
):
    algorithm = make("AgrSum", wd="masked", weight_decay=0.01)
    batches = minibatches()
    g = gradients_of(algorithm, batches)
    agree, conflict = clear_signs(g)
    expected = g.sum(0) + 0.01 * weights_of(algorithm)
    algorithm.update(batches)
    found = given_to_adam(algorithm)
    torch.testing.assert_close(found[agree], expected[agree], rtol=1e-9, atol=1e-12)
    assert not found[conflict].any()


@on_a_network
def test_agr_rand_with_a_sigma_for_each_tensor_spreads_more(make, minibatches):
    spreads = {}
    for sigma in ("tensor", "network"):
        algorithm = make("AgrRand", sigma=sigma)
        assert algorithm.update(minibatches())["no_agreement"] == 0
        stds = [p.grad.std().item() for p in algorithm.network.parameters() if p.numel() > 1000]
        spreads[sigma] = max(stds) / min(stds)
    assert spreads["tensor"] > 1.5 * spreads["network"]
