"""TRM: the Neumann series, the gradient of the transfer risk, and the state."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from domainbed.algorithms import get_algorithm_class
from domainbed.algorithms.transfer_risk import neumann
from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams


def make(k=3, **overrides):
    torch.manual_seed(0)
    hparams = default_hparams("TRM", "Debug28") | {"mlp_width": 8} | overrides
    return get_algorithm_class("TRM")((4,), 3, k, hparams)


def minibatches(sizes=(6, 4, 5), seed=1):
    torch.manual_seed(seed)
    return [(torch.randn(n, 4), torch.randint(3, (n,))) for n in sizes]


def explicit_neumann(direction, classifier, features, y):
    """The series with Hessian-vector products by autograd and an early exit; also the number of terms."""
    v, result, rounds = direction, None, 0
    while rounds < 10:
        rounds += 1
        loss = F.cross_entropy(classifier(features), y)
        (gradient,) = torch.autograd.grad(loss, classifier.weight, create_graph=True)
        (product,) = torch.autograd.grad(gradient, classifier.weight, v)
        v = v - product
        result = 2 * v if result is None else result + v
        if result.abs().max() > 10:
            break
    return result, rounds


@pytest.mark.parametrize(("scale", "rounds"), [(0.3, 10), (3.0, 3), (20.0, 1)])
def test_the_neumann_series_ends_at_the_limit(scale, rounds, float64):
    torch.manual_seed(0)
    classifier, features, y = nn.Linear(5, 3), torch.randn(7, 5), torch.randint(3, (7,))
    direction = scale * torch.rand(3, 5)
    expected, found = explicit_neumann(direction, classifier, features, y)
    assert found == rounds
    torch.testing.assert_close(neumann(direction, classifier, features), expected, rtol=1e-10, atol=1e-12)


def features_of(algorithm, batches):
    return [algorithm.featurizer(x) for x, _ in batches]


def test_the_transfer_risk_has_the_value_with_old_and_the_gradient_with_new_weights(float64):
    algorithm, batches = make(cos_lambda=0.0, groupdro_eta=1.0), minibatches()
    features = features_of(algorithm, batches)
    uniform = (torch.ones(3, 3) - torch.eye(3)) / 2
    risks = torch.stack(
        [
            torch.stack(
                [F.cross_entropy(own(part), y) for part, (_, y) in zip(features, batches, strict=True)]
            )
            for own in algorithm.clist[:3]
        ]
    )
    moved = uniform * (uniform * risks.detach()).exp()
    found = algorithm._transfer_risk(features, batches)
    torch.testing.assert_close(found, (uniform * risks).sum() / 3)
    torch.testing.assert_close(algorithm.alpha, moved)
    parameters = list(algorithm.featurizer.parameters())
    expected = torch.autograd.grad((moved * risks).sum() / 3, parameters, retain_graph=True)
    for own, other in zip(torch.autograd.grad(found, parameters), expected, strict=True):
        torch.testing.assert_close(own, other)


def test_the_alignment_of_gradients_is_multiplied_by_its_weight(float64):
    values = []
    for weight in (0.0, 0.5, 1.0):
        algorithm, batches = make(cos_lambda=weight), minibatches()
        values.append(algorithm._transfer_risk(features_of(algorithm, batches), batches).item())
    assert values[0] != values[1]
    assert values[0] - values[1] == pytest.approx(values[1] - values[2])


def test_alpha_carries_over_and_grows_with_the_risks():
    algorithm = make(iters=1, groupdro_eta=1.0)
    assert algorithm.update(minibatches())["trm_loss"] == 0
    assert algorithm.alpha.tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    for _ in range(2):
        assert algorithm.update(minibatches())["trm_loss"] > 0
    assert algorithm.alpha.diagonal().tolist() == [0, 0, 0]
    assert (algorithm.alpha.sum(1) > 1).all()
    assert algorithm.update_count.tolist() == [3]


def test_class_balanced_copies_the_classifiers_weight_but_not_its_bias():
    algorithm = make(class_balanced=True)
    biases = [own.bias.detach().clone() for own in algorithm.clist]
    algorithm.optimizer_clist.param_groups[0]["lr"] = 0.0
    batches = minibatches()
    algorithm._fit_classifiers(features_of(algorithm, batches), batches)
    for own, bias in zip(algorithm.clist[:3], biases, strict=False):
        assert torch.equal(own.weight, algorithm.classifier.weight)
        assert torch.equal(own.bias, bias)


def test_each_environments_classifier_is_fitted_to_its_own_features():
    algorithm, batches = make(), minibatches()
    features = features_of(algorithm, batches)

    def risks():
        triples = zip(algorithm.clist[:3], features, batches, strict=True)
        return [F.cross_entropy(own(part), y).item() for own, part, (_, y) in triples]

    before = risks()
    algorithm._fit_classifiers(features, batches)
    after = risks()
    assert all(b < a for a, b in zip(before, after, strict=True))
    assert all(parameter.grad is None for parameter in algorithm.featurizer.parameters())


def test_upstreams_checkpoints_without_the_environments_classifiers_can_be_loaded():
    algorithm, other = make(iters=0), make(iters=0)
    algorithm.update(minibatches())
    state = algorithm.state_dict()
    upstreams = {name: value for name, value in state.items() if not name.startswith(("clist.", "alpha"))}
    assert {name.split(".")[0] for name in upstreams} == {"update_count", "featurizer", "classifier"}
    own = other.clist[0].weight.detach().clone()
    other.load_state_dict(upstreams)
    assert other.updates == 1
    assert torch.equal(other.clist[0].weight, own)
    other.load_state_dict(state)
    assert torch.equal(other.alpha, algorithm.alpha)
    assert torch.equal(other.clist[0].weight, algorithm.clist[0].weight)
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({name: value for name, value in upstreams.items() if "weight" not in name})


def test_train_and_eval_are_torchs_and_an_update_sets_training_mode():
    algorithm = make()
    assert algorithm.eval() is algorithm
    assert not algorithm.classifier.training
    algorithm.update(minibatches())
    assert algorithm.featurizer.training
    assert algorithm.train() is algorithm
    assert algorithm.classifier.training


def test_all_parameters_and_buffers_keep_their_dtype():
    algorithm = make(iters=0).double()
    algorithm.update([(x.double(), y) for x, y in minibatches()])
    state = algorithm.state_dict()
    assert {value.dtype for name, value in state.items() if name != "update_count"} == {torch.float64}


def test_one_environment_is_rejected():
    with pytest.raises(UsageError, match="TRM needs at least 2 source environments, not 1"):
        make(k=1)
