import pytest
import torch
from torch import nn, optim

from domainbed.algorithms.base import Algorithm, descend
from domainbed.algorithms.turns import TakesTurns


class Turns(TakesTurns, Algorithm):
    pass


@pytest.mark.parametrize(
    ("d_steps", "turns"), [(0, "gggggg"), (1, "gdgdgd"), (2, "dgddgd"), (3, "ddgddd"), (7, "ddddddg")]
)
def test_the_discriminator_has_d_turns_to_one(d_steps, turns):
    algorithm = Turns((1,), 2, 2, {"d_steps_per_g_step": d_steps})
    assert "".join("gd"[algorithm.discriminators_turn()] for _ in turns) == turns
    assert algorithm.update_count.tolist() == [len(turns)]


def test_descend_steps_all_that_are_named_down_the_gradient_of_this_loss_alone():
    weights = [nn.Parameter(torch.tensor([1.0, 2.0])) for _ in range(3)]
    optimizers = [optim.SGD([weight], lr=0.5) for weight in weights]
    weights[0].grad = torch.full((2,), 100.0)
    descend(sum(weight.square().sum() for weight in weights), *optimizers[:2])
    assert [weight.tolist() for weight in weights] == [[0.0, 0.0], [0.0, 0.0], [1.0, 2.0]]
