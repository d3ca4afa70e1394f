"""ERM++: trained weights, averaged predictions, search for learning rates; LARS."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from domainbed.algorithms.ermplusplus import LARS, ERMPlusPlus, ErmPlusPlusMovingAvg
from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams


def make(**overrides):
    torch.manual_seed(0)
    hparams = default_hparams("ERMPlusPlus", "Debug28") | {"featurizer": "mlp", "mlp_width": 8} | overrides
    return ERMPlusPlus((5,), 3, 2, hparams)


def minibatches(seed=1):
    torch.manual_seed(seed)
    return [(torch.randn(6, 5), torch.randint(3, (6,))) for _ in range(2)]


def changed(module, before):
    return not all(map(torch.equal, module.parameters(), before))


def test_the_first_updates_train_the_classifier_only():
    algorithm, data = make(linear_steps=1), minibatches()
    for full in (False, False, True):
        features, classifier = (
            [p.clone() for p in m.parameters()] for m in (algorithm.featurizer, algorithm.classifier)
        )
        algorithm.update(data)
        assert changed(algorithm.featurizer, features) == full
        assert changed(algorithm.classifier, classifier)
        assert all((p.grad is not None) == full for p in algorithm.featurizer.parameters())


def test_predictions_use_the_running_mean():
    algorithm, data = make(linear_steps=0), minibatches()
    algorithm.sma_start_iter = 2
    states = []
    for _ in range(4):
        algorithm.update(data)
        states.append(copy.deepcopy(algorithm.network.state_dict()))
    mean = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    for name, value in algorithm.network_sma.state_dict().items():
        torch.testing.assert_close(value, mean[name])
    x = data[0][0]
    assert torch.equal(algorithm.predict(x), algorithm.network_sma(x))
    assert not torch.equal(algorithm.predict(x), algorithm.network(x))


@pytest.mark.parametrize("freeze_bn", [False, True])
def test_averaged_batch_norms_are_updated_unless_frozen(freeze_bn):
    algorithm = make(freeze_bn=freeze_bn)
    algorithm.network_sma.insert(1, nn.BatchNorm1d(8))
    # That of the network is not used, so the averaged statistics are the initial ones.
    algorithm.network.insert(1, nn.BatchNorm1d(8))
    algorithm.update(minibatches())
    norm = algorithm.network_sma[1]
    assert norm.num_batches_tracked == (not freeze_bn)
    assert torch.equal(norm.running_mean, torch.zeros(8)) == freeze_bn
    assert all(p.grad is None for p in algorithm.network_sma.parameters())


def test_lars_accepts_the_learning_rate_of_a_schedule():
    algorithm, data = make(lars=True, linear_steps=0, lr=1.0, linear_lr=1.0), minibatches()
    assert isinstance(algorithm.optimizer, LARS)
    assert isinstance(algorithm.linear_optimizer, LARS)
    algorithm.update(data)
    algorithm.set_lr(schedule=[[0.5]])
    before = [p.clone() for p in algorithm.network.parameters()]
    algorithm.update(data)
    assert changed(algorithm.network, before)


def loaders(algorithm, data, loss):
    """Validation data on which the averaged network has about this loss, by a change of its last bias."""
    x = data[0][0]
    with torch.no_grad():
        algorithm.network_sma[1].weight.zero_()
        algorithm.network_sma[1].bias.copy_(torch.tensor([0.0, loss, 0.0]))
    return [[(x, torch.zeros(len(x), dtype=torch.int64))]]


def test_set_lr_does_nothing_while_only_the_classifier_is_trained():
    algorithm = make(linear_steps=0)
    assert algorithm.set_lr() is None
    given = [[0.1], [0.2]]
    assert algorithm.set_lr(schedule=given) is given
    assert algorithm.optimizer.param_groups[0]["lr"] == algorithm.hparams["lr"]


def test_the_search_lowers_the_learning_rate_on_plateaus_and_ends_at_the_third_change():
    algorithm, data = make(linear_steps=0, lr=1.0), minibatches()
    algorithm.update(data)
    found = [
        copy.deepcopy(algorithm.set_lr(loaders(algorithm, data, loss)))
        for loss in (3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0)
    ]
    # 3 and 2 are improvements; then the rate falls after each two losses without one.
    assert found[0] == [[1.0]]
    assert [entry[0] for entry in found[-1]] == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert algorithm.lr_schedule_changes == 2
    algorithm.set_lr(loaders(algorithm, data, 2.0))
    assert algorithm.lr_schedule_changes == 3
    assert algorithm.lr_schedule[-1] == [0.0]
    assert algorithm.set_lr(loaders(algorithm, data, 2.0)) is algorithm.lr_schedule


def test_the_validation_loss_is_a_mean_over_loaders_of_means_over_batches(monkeypatch):
    algorithm, data = make(linear_steps=0), minibatches()
    algorithm.update(data)
    seen = []
    monkeypatch.setattr(algorithm.scheduler, "step", seen.append)
    (x, y), (v, w) = data
    algorithm.set_lr([[(x, y), (x[:1], y[:1])], [(v, w)]])
    losses = [F.cross_entropy(algorithm.predict(a), b).item() for a, b in ((x, y), (x[:1], y[:1]), (v, w))]
    assert seen == [pytest.approx(((losses[0] + losses[1]) / 2 + losses[2]) / 2)]


def test_set_lr_follows_a_schedule_entry_by_entry():
    algorithm, data = make(linear_steps=0), minibatches()
    algorithm.update(data)
    rest = algorithm.set_lr(schedule=[[0.25], [0.0]])
    assert rest == [[0.0]]
    rate = algorithm.optimizer.param_groups[0]["lr"]
    assert (rate.dtype, rate.shape, rate.item()) == (torch.float32, (), 0.25)
    algorithm.update(data)


def test_set_lr_rejects_missing_and_empty_arguments():
    algorithm = make(linear_steps=0)
    algorithm.update(minibatches())
    with pytest.raises(UsageError, match="needs eval_loaders_iid to search for learning rates, or"):
        algorithm.set_lr()
    with pytest.raises(UsageError, match="empty schedule"):
        algorithm.set_lr(schedule=[])


def test_the_search_resumes_from_a_saved_state():
    data, algorithms = minibatches(), [make(linear_steps=0, lr=1.0) for _ in range(2)]
    first, second = algorithms
    first.sma_start_iter = second.sma_start_iter = 1
    for _ in range(3):
        first.update(data)
        first.set_lr(loaders(first, data, 2.0))
    file = io.BytesIO()
    torch.save(first.training_state(), file)
    file.seek(0)
    second.load_training_state(torch.load(file, weights_only=True))
    for algorithm in algorithms:
        algorithm.update(data)
        algorithm.set_lr(loaders(algorithm, data, 2.0))
    assert second.lr_schedule == first.lr_schedule
    assert len(second.lr_schedule) == 4
    assert second.lr_schedule_changes == first.lr_schedule_changes == 1
    assert second.sma_count == 4
    assert all(map(torch.equal, first.parameters(), second.parameters()))


def test_the_moving_average_copies_the_network_first_and_then_averages_it():
    network = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    moving = ErmPlusPlusMovingAvg(network)
    assert not moving.network_sma.training
    moving.sma_start_iter = 3
    means = []
    for value in (1.0, 2.0, 3.0, 7.0):
        nn.init.constant_(network[0].weight, value)
        network[1].running_mean.fill_(10 * value)
        network[1].num_batches_tracked += 1
        moving.update_sma()
        means.append((moving.network_sma[0].weight.item(), moving.network_sma[1].running_mean.item()))
    # Copies after two updates; then means that start with the second state.
    assert means == [(1, 10), (2, 20), (2.5, 25), (4, 40)]
    assert (moving.global_iter, moving.sma_count) == (4, 2)
    assert moving.network_sma[1].num_batches_tracked == 0


# LARS


def with_gradient(values, gradient):
    made = nn.Parameter(torch.tensor(values, dtype=torch.float64))
    made.grad = torch.tensor(gradient, dtype=torch.float64)
    return made


def test_two_steps_of_lars_by_hand():
    weight, bias = with_gradient([[3.0, 4.0]], [[0.0, 2.0]]), with_gradient([1.0], [0.5])
    optimizer = LARS([weight, bias], lr=0.1, weight_decay=0.5, momentum=0.9, trust_coefficient=0.01)
    optimizer.step()
    # g + wd * p = (1.5, 4), scaled by 0.01 * 5 / |g|; the bias is neither decayed nor scaled.
    first = torch.tensor([[1.5, 4.0]], dtype=torch.float64) * 0.01 * 5 / (1.5**2 + 16) ** 0.5
    torch.testing.assert_close(weight.detach(), torch.tensor([[3.0, 4.0]], dtype=torch.float64) - 0.1 * first)
    assert bias.item() == pytest.approx(1 - 0.1 * 0.5)
    torch.testing.assert_close(optimizer.state[weight]["mu"], first)

    optimizer.step()
    assert bias.item() == pytest.approx(1 - 0.1 * 0.5 - 0.1 * (0.9 * 0.5 + 0.5))


@pytest.mark.parametrize(("values", "gradient"), [([[0.0, 0.0]], [[1.0, 2.0]]), ([[1.0, 2.0]], [[0.0, 0.0]])])
def test_lars_does_not_scale_zero_weights_or_gradients(values, gradient):
    weight = with_gradient(values, gradient)
    LARS([weight], lr=1.0).step()
    expected = torch.tensor(values, dtype=torch.float64) - torch.tensor(gradient, dtype=torch.float64)
    torch.testing.assert_close(weight.detach(), expected)


def test_lars_accepts_a_tensor_as_learning_rate_and_skips_parameters_without_gradient():
    weight, idle = with_gradient([[3.0, 4.0]], [[0.0, 2.0]]), nn.Parameter(torch.ones(2, 2))
    number = with_gradient([[3.0, 4.0]], [[0.0, 2.0]])
    optimizer = LARS([weight, idle])
    optimizer.param_groups[0]["lr"] = torch.tensor(0.5)
    optimizer.step()
    LARS([number], lr=0.5).step()
    torch.testing.assert_close(weight, number)
    assert torch.equal(idle.detach(), torch.ones(2, 2))


def test_lars_restores_a_saved_state():
    weights = [with_gradient([[3.0, 4.0]], [[0.0, 2.0]]) for _ in range(2)]
    first, second = (LARS([weight], lr=0.1) for weight in weights)
    first.step()
    weights[1].data.copy_(weights[0].data)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    first.step()
    second.step()
    assert torch.equal(*weights)
