import torch

from domainbed import networks


def test_the_output_has_one_channel_of_the_images_size():
    net = networks.ContextNet((2, 9, 7))
    assert net(torch.randn(3, 2, 9, 7)).shape == (3, 1, 9, 7)
    assert net(torch.randn(3, 2, 4, 4)).shape == (3, 1, 4, 4)


def test_parameters_have_upstreams_names_and_sizes():
    sizes = {name: tuple(p.shape) for name, p in networks.ContextNet((2, 9, 7)).named_parameters()}
    assert sizes["context_net.0.weight"] == (64, 2, 5, 5)
    assert sizes["context_net.3.weight"] == (64, 64, 5, 5)
    assert sizes["context_net.6.weight"] == (1, 64, 5, 5)
    assert list(sizes)[2:4] == ["context_net.1.weight", "context_net.1.bias"]
