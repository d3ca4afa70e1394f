import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed.datasets.digit_environments import COLORS, colored, deal

N = 20_000


def within(hits, probability, sigmas=4.5):
    """Whether the number of true `hits` is that of coins with this probability, by their own spread."""
    spread = math.sqrt(len(hits) * probability * (1 - probability))
    return abs(int(hits.sum()) - len(hits) * probability) < sigmas * spread


@pytest.fixture(scope="module")
def digits():
    """Images whose every pixel is lit, and labels 0 to 9."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (N,), generator=generator)
    return torch.randint(1, 256, (N, 2, 2), dtype=torch.uint8, generator=generator), labels


@pytest.mark.parametrize("flip", COLORS.values())
def test_a_quarter_of_the_labels_is_wrong_and_colours_differ_from_the_noisy_label_at_their_rate(digits, flip):
    images, labels = digits
    torch.manual_seed(1)
    environment = colored(images, labels, flip)
    lit = environment.images.flatten(2).all(2)
    assert (lit.sum(1) == 1).all(), "each digit has one colour"
    x, y = environment.batch(np.arange(N))
    torch.testing.assert_close(x.sum(1), images / 255)
    right = (labels < 5).long()
    color = lit[:, 1].long()
    assert within(y != right, 0.25)
    assert within(color != y, flip)
    # The noise of colours and labels is independent of each other, and of the digit.
    assert within((color != y)[y != right], flip)
    assert all(within((y != right)[labels == digit], 0.25) for digit in range(10))


def test_equal_seeds_make_equal_environments(digits):
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(colored(*digits, 0.1))
    assert torch.equal(made[0].images, made[1].images)
    assert torch.equal(made[0].targets, made[1].targets)
    assert not torch.equal(made[0].targets, made[2].targets)


def test_without_colour_both_channels_and_the_same_labels(digits):
    torch.manual_seed(1)
    seen = colored(*digits, 0.1)
    torch.manual_seed(1)
    grey = colored(*digits, 0.1, grey=True)
    assert torch.equal(grey.targets, seen.targets)
    assert torch.equal(grey.images, digits[0].unsqueeze(1).expand(-1, 2, -1, -1))


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 6))
def test_every_image_is_dealt_once_with_its_label(n, k):
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1)
    dealt = deal(images, torch.arange(n), range(k), lambda x, y, i: (x.flatten().long(), y, i))
    assert [i for _, _, i in dealt] == list(range(k))
    assert all(torch.equal(x, y) for x, y, _ in dealt)
    assert sorted(torch.cat([y for _, y, _ in dealt]).tolist()) == list(range(n))
    sizes = [len(y) for _, y, _ in dealt]
    assert max(sizes) - min(sizes) <= 1
