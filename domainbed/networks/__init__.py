"""Networks: featurizers by name, and the classifiers on top of them.

To add a featurizer, put a class with `@FEATURIZERS.register("name")` into a file of this package or into a
plugin. It is called with `(input_shape, hparams)` and must follow the contract of
`domainbed.networks.base.FeaturizerModule`. A run selects it with `--hparams '{"featurizer": "name"}'`. By
default the input shape selects the featurizer, as in upstream. The name "timm:NETWORK" or "timm:NETWORK.TAG"
selects any network of timm.

Upstream's names are attributes of this module. The files that define them, and torch, are imported on first
use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from domainbed.networks import options as options
from domainbed.networks.registry import FEATURIZERS as FEATURIZERS
from domainbed.networks.registry import featurizer_class as featurizer_class

if TYPE_CHECKING:
    from torch.nn import Identity as Identity

    from domainbed.networks.base import FeaturizerModule as FeaturizerModule
    from domainbed.networks.classifier import Classifier as Classifier
    from domainbed.networks.classifier import WholeFish as WholeFish
    from domainbed.networks.classifier import start_from_text as start_from_text
    from domainbed.networks.context_net import ContextNet as ContextNet
    from domainbed.networks.dinov2 import DinoV2 as DinoV2
    from domainbed.networks.featurizer import Featurizer as Featurizer
    from domainbed.networks.mlp import MLP as MLP
    from domainbed.networks.mnist_cnn import MNIST_CNN as MNIST_CNN
    from domainbed.networks.resnet import ResNet as ResNet
    from domainbed.networks.small_cnn import SmallCNN as SmallCNN
    from domainbed.networks.wide_resnet import Wide_ResNet as Wide_ResNet

_HOMES = {
    "Classifier": "domainbed.networks.classifier",
    "ContextNet": "domainbed.networks.context_net",
    "DinoV2": "domainbed.networks.dinov2",
    "Featurizer": "domainbed.networks.featurizer",
    "FeaturizerModule": "domainbed.networks.base",
    "Identity": "torch.nn",
    "MLP": "domainbed.networks.mlp",
    "MNIST_CNN": "domainbed.networks.mnist_cnn",
    "ResNet": "domainbed.networks.resnet",
    "SmallCNN": "domainbed.networks.small_cnn",
    "WholeFish": "domainbed.networks.classifier",
    "start_from_text": "domainbed.networks.classifier",
    "Wide_ResNet": "domainbed.networks.wide_resnet",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
