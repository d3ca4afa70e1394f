"""Every registered algorithm learns, for any number of environments and sizes of minibatches."""

import pytest
import torch
import torch.nn.functional as F

from domainbed.algorithms import ALGORITHMS, get_algorithm_class
from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams

SHAPE = (3, 16, 16)
UPDATES = 12
pytestmark = pytest.mark.parametrize("name", ALGORITHMS)


def make(name, k, shape=SHAPE, classes=3, **overrides):
    torch.manual_seed(0)
    hparams = default_hparams(name, "Debug28") | {"featurizer": "small_cnn"} | overrides
    return get_algorithm_class(name)(shape, classes, k, hparams)


def toy(k, shape=SHAPE, classes=3, unequal=True):
    """An easy problem: each class has a pattern, and environments differ in contrast."""
    generator = torch.Generator().manual_seed(k)
    patterns = torch.randn(classes, *shape, generator=generator)
    minibatches = []
    for e in range(k):
        y = torch.arange(8 - (e % 3 if unequal else 0)) % classes
        noise = torch.randn(len(y), *shape, generator=generator)
        minibatches.append(((1 + e / 4) * patterns[y] + 0.5 * noise, y))
    return minibatches


def risk(algorithm, minibatches):
    """Mean cross-entropy of the predictions over all samples, in evaluation mode."""
    algorithm.eval()
    with torch.no_grad():
        torch.manual_seed(7)
        logits = torch.cat([algorithm.predict(x) for x, _ in minibatches])
    algorithm.train()
    return F.cross_entropy(logits.float(), torch.cat([y for _, y in minibatches])).item()


def learns(algorithm, minibatches, updates=UPDATES):
    """Train, and return whether the risk fell."""
    before = risk(algorithm, minibatches)
    for step in range(updates):
        torch.manual_seed(step)
        values = algorithm.update(minibatches)
        assert all(torch.isfinite(torch.tensor(float(value))) for value in values.values()), values
    return risk(algorithm, minibatches) < before


@pytest.mark.parametrize("k", [1, *(pytest.param(k, marks=pytest.mark.slow) for k in (2, 3)), 5])
def test_any_number_of_environments_of_unequal_sizes(name, k):
    cls = get_algorithm_class(name)
    if k < cls.MIN_DOMAINS:
        with pytest.raises(UsageError, match=f"{name} needs at least {cls.MIN_DOMAINS} source environments"):
            make(name, k)
        return
    algorithm = make(name, k)
    if cls.EQUAL_SIZES and k > 1:
        with pytest.raises(UsageError, match=f"{name} needs minibatches of equal size"):
            algorithm.update(toy(k))
    assert learns(algorithm, toy(k, unequal=not cls.EQUAL_SIZES)) == cls.TRAINS


def test_bfloat16_autocast(name):
    algorithm = make(name, 3)
    # Autocast's cache of rounded weights would not follow the updates within the context.
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        assert learns(algorithm, toy(3, unequal=not algorithm.EQUAL_SIZES)) == algorithm.TRAINS
    assert all(parameter.dtype == torch.float32 for parameter in algorithm.parameters())
