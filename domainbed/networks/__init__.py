"""Networks: featurizers by name, and the classifier on top of them.

To add a featurizer, put a class with `@FEATURIZERS.register("name")` into a file of this package, or into
a plugin: it is called with `(input_shape, hparams)` and has `n_outputs`. A run chooses it with
`--hparams '{"featurizer": "name"}'`; without that, the shape of the input chooses as in upstream. A name
"timm:NETWORK" or "timm:NETWORK.TAG" is any network of timm's.
Upstream's names are attributes of this module; the files behind them, and torch, are imported when one is
first asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from domainbed.networks import options as options
from domainbed.registry import Registry

if TYPE_CHECKING:
    from torch.nn import Identity as Identity

    from domainbed.networks.base import FeaturizerModule as FeaturizerModule
    from domainbed.networks.classifier import Classifier as Classifier
    from domainbed.networks.context_net import ContextNet as ContextNet
    from domainbed.networks.dinov2 import DinoV2 as DinoV2
    from domainbed.networks.featurizer import Featurizer as Featurizer
    from domainbed.networks.mlp import MLP as MLP
    from domainbed.networks.mnist_cnn import MNIST_CNN as MNIST_CNN
    from domainbed.networks.resnet import ResNet as ResNet
    from domainbed.networks.small_cnn import SmallCNN as SmallCNN
    from domainbed.networks.whole_fish import WholeFish as WholeFish
    from domainbed.networks.wide_resnet import Wide_ResNet as Wide_ResNet

    FeaturizerClass = Callable[[tuple[int, ...], dict[str, Any]], FeaturizerModule]

_ORDER = ("mlp", "mnist_cnn", "wide_resnet", "small_cnn", "resnet", "resnet18", "resnet50", "dinov2")

FEATURIZERS: Registry[FeaturizerClass] = Registry("Featurizer", home=__name__, first=_ORDER)

TIMM = "timm:"
"""What the name of a featurizer begins with that is a network of timm's."""


def featurizer_class(name: str) -> FeaturizerClass:
    """The featurizer called `name`: a registered one, or one of timm's.

    Raises: UnknownName; UsageError for an unknown tag, or without timm.
    """
    if not name.startswith(TIMM):
        return FEATURIZERS[name]
    from domainbed.networks.timm_networks import timm_featurizer

    return timm_featurizer(name.removeprefix(TIMM))


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
    "WholeFish": "domainbed.networks.whole_fish",
    "Wide_ResNet": "domainbed.networks.wide_resnet",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
