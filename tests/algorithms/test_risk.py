"""VREx and EQRM. Reference numbers are tested in test_updates."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from domainbed.algorithms import get_algorithm_class
from domainbed.algorithms.densities import Normal
from domainbed.errors import UsageError
from domainbed.hparams import override
from domainbed.hparams_registry import default_hparams, table

SHAPE = (3, 16, 16)


def make(name, k=3, dist=None, **overrides):
    torch.manual_seed(0)
    hparams = default_hparams(name, "Debug28") | {"featurizer": "small_cnn"} | overrides
    extra = () if dist is None else (dist,)
    return get_algorithm_class(name)(SHAPE, 3, k, hparams, *extra)


def minibatches(*sizes):
    torch.manual_seed(1)
    return [((1 + e) * torch.randn(n, *SHAPE), torch.arange(n) % 3) for e, n in enumerate(sizes)]


def risks(algorithm, batches):
    """The environments' risks before an update, as a NumPy array."""
    with torch.no_grad():
        return np.array([F.cross_entropy(algorithm.predict(x), y).item() for x, y in batches])


@pytest.mark.parametrize(("anneal", "weight"), [(1, 1.0), (0, 10.0)])
def test_vrex_penalises_the_variance_of_the_risks_and_logs_the_last_one(anneal, weight):
    algorithm, batches = make("VREx", vrex_penalty_anneal_iters=anneal), minibatches(4, 6, 5)
    risk = risks(algorithm, batches)
    values = algorithm.update(batches)
    expected = {"loss": risk.mean() + weight * risk.var(), "nll": risk[-1], "penalty": risk.var()}
    assert values == pytest.approx(expected, rel=1e-4)


def test_vrex_has_no_penalty_for_equal_risks():
    (batch,) = minibatches(5)
    assert make("VREx").update([batch, batch])["penalty"] == pytest.approx(0, abs=1e-12)
    assert make("VREx", k=1).update([batch])["penalty"] == 0


def learning_rates(updates=5, **overrides):
    algorithm = make("EQRM", eqrm_lr=1e-5, **overrides)
    rates = []
    for _ in range(updates):
        algorithm.update(minibatches(4, 4, 4))
        rates.append(algorithm.optimizer.param_groups[0]["lr"])
    return rates


def test_eqrm_changes_the_learning_rate_after_an_integer_burn_in():
    assert learning_rates(eqrm_burnin_iters=2) == [1e-3] * 2 + [1e-5] * 3
    assert learning_rates(eqrm_burnin_iters=2.0) == [1e-3] * 2 + [1e-5] * 3


def test_eqrm_changes_the_learning_rate_after_a_fractional_burn_in_with_the_switch_only():
    assert learning_rates(eqrm_burnin_iters=2.3) == [1e-3] * 5
    assert learning_rates(eqrm_burnin_iters=2.3, eqrm_round_burnin=True) == [1e-3] * 3 + [1e-5] * 2
    assert learning_rates(eqrm_burnin_iters=2, eqrm_round_burnin=True) == [1e-3] * 2 + [1e-5] * 3


def test_eqrm_starts_with_the_mean_risk():
    algorithm, batches = make("EQRM", eqrm_burnin_iters=0.5), minibatches(4, 6, 5)
    expected = risks(algorithm, batches).mean()
    assert algorithm.update(batches)["loss"] == pytest.approx(expected, rel=1e-6)
    # The second update uses the quantile, also if the burn-in is not an integer.
    risk = risks(algorithm, batches)
    assert algorithm.update(batches)["loss"] > risk.mean()


def test_eqrms_loss_increases_with_alpha_and_does_not_depend_on_the_order():
    batches = minibatches(4, 6, 5)
    losses = [
        make("EQRM", eqrm_burnin_iters=0, eqrm_quantile=alpha).update(batches)["loss"]
        for alpha in (0.1, 0.5, 0.9, 0.999, -30.0)
    ]
    assert losses == sorted(losses)
    assert len(set(losses)) == 5
    back = make("EQRM", eqrm_burnin_iters=0, eqrm_quantile=0.1).update(batches[::-1])["loss"]
    assert back == pytest.approx(losses[0], rel=1e-5)


def test_eqrm_accepts_another_distribution():
    algorithm, batches = make("EQRM", dist=Normal(), eqrm_burnin_iters=0), minibatches(4, 6, 5)
    risk = risks(algorithm, batches)
    expected = stats.norm(risk.mean(), risk.std(ddof=1)).ppf(0.75)
    assert algorithm.update(batches)["loss"] == pytest.approx(expected, rel=1e-5)


def test_eqrms_gradient_is_that_of_a_mixture_of_the_bounds_with_constant_weights(float64):
    """The result of the search counts as a constant, so this is not the slope of the quantile itself."""
    batches = minibatches(4, 6, 5)
    z = stats.norm.ppf(0.75)

    def bounds(algorithm):
        risk = risks(algorithm, batches)
        bandwidth = 1.06 * risk.std(ddof=1) * len(risk) ** -0.2
        return np.array([risk.min() + bandwidth * z, risk.max() + bandwidth * z])

    algorithm = make("EQRM", eqrm_burnin_iters=0)
    loss = algorithm.update(batches)["loss"]
    gradient = [parameter.grad for parameter in algorithm.parameters()]
    norm = torch.cat([each.flatten() for each in gradient]).norm()

    found = []
    for step in (1e-6, 0.0, -1e-6):
        moved = make("EQRM")
        with torch.no_grad():
            for parameter, each in zip(moved.parameters(), gradient, strict=True):
                parameter += step * each / norm
        found.append(bounds(moved))
    ahead, (lo, hi), behind = found
    share = (loss - lo) / (hi - lo)
    slopes = (ahead - behind) / 2e-6
    assert (1 - share) * slopes[0] + share * slopes[1] == pytest.approx(norm.item(), rel=1e-5)


def test_eqrm_trains_in_float32_and_with_equal_risks():
    (batch,) = minibatches(6)
    algorithm = make("EQRM", eqrm_burnin_iters=0)
    risk = risks(algorithm, [batch])[0]
    assert algorithm.update([batch] * 3)["loss"] == pytest.approx(risk, rel=1e-5)
    assert all(p.dtype == torch.float32 and p.grad.isfinite().all() for p in algorithm.parameters())


def test_eqrms_alpha_is_a_float64_buffer():
    algorithm = make("EQRM", eqrm_quantile=0.9)
    assert algorithm.state_dict()["alpha"].dtype == torch.float64
    assert algorithm.state_dict()["alpha"].item() == 0.9
    other = make("EQRM")
    other.load_state_dict(algorithm.state_dict())
    assert other.alpha.item() == 0.9


@pytest.mark.parametrize("name", ["VREx", "EQRM"])
def test_an_update_does_not_wait_for_the_device(name):
    """Tensors on the meta device have no values to read. Adam of torch 2.6 reads its number of steps."""
    with torch.device("meta"):
        algorithm = make(name, eqrm_burnin_iters=0, optimizer="SGD")
        algorithm.update(minibatches(4, 6, 5))
    assert algorithm.updates == 1


def test_eqrm_rejects_one_environment_and_invalid_quantiles():
    with pytest.raises(UsageError, match="EQRM needs at least 2 source environments, not 1"):
        make("EQRM", k=1)
    with pytest.raises(UsageError, match=r"eqrm_quantile must be between 0 and 1, or negative .*not 0"):
        make("EQRM", eqrm_quantile=0)
    for quantile in (1.0, 1.5):
        with pytest.raises(UsageError, match=f"eqrm_quantile must be less than 1, not {quantile}"):
            override({}, {"eqrm_quantile": quantile}, table("EQRM"), "Debug28")
