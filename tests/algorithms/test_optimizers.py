import torch
from torch import nn, optim

from domainbed.algorithms.optimizers import descend


def test_descend_steps_the_given_optimizers_along_the_gradient_of_this_loss():
    weights = [nn.Parameter(torch.tensor([1.0, 2.0])) for _ in range(3)]
    optimizers = [optim.SGD([weight], lr=0.5) for weight in weights]
    weights[0].grad = torch.full((2,), 100.0)
    descend(sum(weight.square().sum() for weight in weights), *optimizers[:2])
    assert [weight.tolist() for weight in weights] == [[0.0, 0.0], [0.0, 0.0], [1.0, 2.0]]
