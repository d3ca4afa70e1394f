"""Draws that belong to components: Normal(0, 1), and the same on any number of threads."""

import pytest
import torch

from domainbed.gradients import random_numbers

SIZE = (random_numbers._BLOCKS_AT_ONCE + 1) * random_numbers._BLOCK + 77  # two parts


def drawn():
    values = torch.full((SIZE,), torch.nan)
    for start, part in random_numbers.normal_parts(values, 5):
        values[start : start + len(part)] = part
    return values


def test_any_number_of_threads_draws_the_same_numbers(monkeypatch):
    alone = drawn()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(drawn(), alone)


def test_each_block_is_drawn_from_a_generator_of_its_own():
    blocks = drawn().split(random_numbers._BLOCK)
    for number, block in enumerate(blocks):
        generator = torch.Generator().manual_seed(5 + number)
        assert torch.equal(block, torch.empty_like(block).normal_(generator=generator))
    assert len(blocks[-1]) == 77
    assert blocks[0].mean() == pytest.approx(0, abs=0.01)
    assert blocks[0].std() == pytest.approx(1, abs=0.01)


def test_uniform_draws_depend_on_the_seed_alone():
    like = torch.empty(1000)
    torch.manual_seed(0)
    first = random_numbers.uniform(like, 3)
    torch.manual_seed(1)
    assert torch.equal(random_numbers.uniform(like, 3), first)
    assert not torch.equal(random_numbers.uniform(like, 4), first)
    assert ((first >= 0) & (first < 1)).all()
