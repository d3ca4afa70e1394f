"""The network that is measured: it is as before afterwards."""

from __future__ import annotations

import pytest
import torch

from domainbed.algorithms import get_algorithm_class
from domainbed.errors import UsageError
from domainbed.training.config import TrainConfig
from domainbed.training.run_hparams import resolved_hparams
from domainbed_gs.alignment.network import check_independent, measured_network


def make(algorithm):
    config = TrainConfig(dataset="Debug28", algorithm=algorithm, hparams='{"featurizer": "small_cnn"}')
    return get_algorithm_class(algorithm)((3, 28, 28), 2, 2, resolved_hparams(config))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("algorithm", ["ERM", "DANN"])
def test_parameters_and_modes_are_as_before_and_only_trained_layers_of_the_prediction_count(
    algorithm, shared
):
    made = make(algorithm)
    made.train()
    frozen = next(iter(made.parameters())).requires_grad_(False)
    before = {name: (each.data_ptr(), each.requires_grad) for name, each in made.named_parameters()}
    values = {name: each.clone() for name, each in made.named_parameters()}
    x = torch.rand(2, 3, 28, 28)
    with measured_network(made, x, shared) as network:
        assert not network.network.training
        assert not any("discriminator" in name for name in network.names)
        assert not any(network.network.get_parameter(name) is frozen for name in network.names)
        assert network.classifier == {"algorithm.classifier"}
        assert network.count(network.classifier) == 128 * 2 + 2
        with network.only(network.classifier) as vector:
            assert [each.requires_grad for each in made.classifier.parameters()] == [True, True]
            assert not any(each.requires_grad for each in made.featurizer.parameters())
            vector.values.add_(1)
            assert bool(made.classifier.bias[0] != values["classifier.bias"][0]) is shared
            vector.values.sub_(1)
    assert made.training
    assert all(module.training for module in made.modules())
    for name, each in made.named_parameters():
        assert each.requires_grad is before[name][1]
        assert shared or each.data_ptr() == before[name][0]
        torch.testing.assert_close(each, values[name])


@pytest.mark.parametrize("algorithm", ["ARM", "MTL"])
def test_a_sample_whose_prediction_depends_on_others_or_on_random_numbers_has_no_gradient(algorithm):
    x = torch.rand(4, 3, 28, 28)
    with measured_network(make("ERM"), x[:1], shared=False) as network:
        check_independent(network.network, x)
    made = make(algorithm)
    made.update([(x, torch.tensor([0, 1, 0, 1]))] * 2)
    with (
        measured_network(made, x[:1], shared=False) as network,
        pytest.raises(UsageError, match="samples have no gradients of their own"),
    ):
        check_independent(network.network, x)
