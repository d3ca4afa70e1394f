import torch
from torch import nn

from domainbed import networks

HPARAMS = {"nonlinear_classifier": True, "mlp_width": 8}


def test_a_nonlinear_classifier_halves_the_width_twice():
    assert isinstance(networks.Classifier(8, 3), nn.Linear)
    widths = [
        (m.in_features, m.out_features) for m in networks.Classifier(8, 3, True) if isinstance(m, nn.Linear)
    ]
    assert widths == [(8, 4), (4, 2), (2, 3)]


def make(weights=None):
    return networks.WholeFish((4,), 3, HPARAMS, weights)


def test_whole_fish_is_a_featurizer_and_a_classifier_with_upstreams_names():
    torch.manual_seed(0)
    network = make()
    torch.manual_seed(0)
    featurizer = networks.Featurizer((4,), HPARAMS)
    classifier = networks.Classifier(8, 3, True)
    x = torch.randn(5, 4)
    assert torch.equal(network(x), classifier(featurizer(x)))
    assert {"net.0.input.weight", "net.1.4.bias"} <= network.state_dict().keys()


def test_whole_fish_copies_its_weights():
    first = make()
    second, third = make(first.state_dict()), make()
    third.reset_weights(first.state_dict())
    x = torch.randn(5, 4)
    expected = first(x)
    with torch.no_grad():
        first.net[0].input.weight.zero_()
    assert torch.equal(second(x), expected)
    assert torch.equal(third(x), expected)
