"""Every registered algorithm trains on images from datasets, with batch norms in both modes."""

import numpy as np
import pytest
import torch

from domainbed.algorithms import ALGORITHMS, get_algorithm_class
from domainbed.datasets import get_dataset_class
from domainbed.hparams_registry import default_hparams
from domainbed.networks import ResNet

UPDATES = 15
SCRATCH = {"featurizer": "resnet", "resnet18": True, "resnet50_augmix": False, "pretrained": False}
PARTS = {"MoDo": 2, "SDMGrad": 3, "PGrad": 3}
"""Method that cuts minibatches -> number of parts. A part has the size of other methods' minibatches."""
pytestmark = pytest.mark.parametrize("name", ALGORITHMS)


def trained(name, dataset_name, sizes, **overrides):
    """The algorithm after some updates on new minibatches of the first three environments."""
    hparams = default_hparams(name, dataset_name) | overrides
    torch.manual_seed(0)
    dataset = get_dataset_class(dataset_name)(None, [], hparams)
    cls = get_algorithm_class(name)
    algorithm = cls(dataset.input_shape, dataset.num_classes, len(sizes), hparams)
    before = {key: value.clone() for key, value in algorithm.named_parameters()}
    sizes = [max(sizes)] * len(sizes) if cls.EQUAL_SIZES else sizes
    sizes = [PARTS.get(name, 1) * size for size in sizes]
    draws = np.random.default_rng(0)
    for step in range(UPDATES):
        minibatches = [
            getattr(environment, "batch", environment.__getitem__)(
                draws.choice(len(environment), size, replace=False)
            )
            for environment, size in zip(dataset.datasets, sizes, strict=False)
        ]
        torch.manual_seed(step)
        values = algorithm.update(minibatches)
        assert all(np.isfinite(float(value)) for value in values.values())
    changed = [key for key, value in algorithm.named_parameters() if not torch.equal(value, before[key])]
    assert bool(changed) == cls.TRAINS
    algorithm.eval()
    with torch.no_grad():
        logits = algorithm.predict(minibatches[0][0])
    assert logits.shape == (sizes[0], dataset.num_classes)
    assert logits.isfinite().all()
    return algorithm


@pytest.mark.slow
def test_debug28(name):
    trained(name, "Debug28", [5, 4, 3], featurizer="small_cnn")


def test_emoji_styles(name):
    own = {"clip_model": "tiny"} if get_algorithm_class(name).FEATURIZER == "clip" else {}
    trained(name, "EmojiStyles", [4, 3, 2], **own)


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("dataset", ["EmojiStyles", "Debug224"])
def test_resnet18_from_scratch_with_live_and_frozen_batch_norm(name, dataset, frozen):
    if get_algorithm_class(name).FEATURIZER:  # it has no ResNet
        return
    algorithm = trained(name, dataset, [3, 2, 2], freeze_bn=frozen, **SCRATCH)
    # The batch norms of ARM's context network are never frozen.
    backbones = [module for module in algorithm.modules() if isinstance(module, ResNet)]
    layers = [
        layer for each in backbones for layer in each.modules() if isinstance(layer, torch.nn.BatchNorm2d)
    ]
    assert layers
    if frozen:
        assert all(layer.running_mean.eq(0).all() for layer in layers)
