"""Networks built by torchvision and timm, with their random initial weights."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from torch import nn

from domainbed.errors import UnknownName, UsageError, misspelt


def torchvision_network(architecture: str) -> nn.Module:
    """A new network of torchvision, such as "resnet18"."""
    from torchvision.models import get_model

    network: nn.Module = get_model(architecture, weights=None)
    return network


def timm_network(name: str, **options: Any) -> nn.Module:  # noqa: ANN401 - timm's own
    """A new network of timm, built with `options`. Raises UsageError if timm is not installed."""
    network: nn.Module = _timm(name).create_model(name, **options)
    return network


def timm_config(name: str) -> Any:  # noqa: ANN401 - timm's PretrainedCfg; timm may be missing
    """timm's description of a network and its weights, for a name "network.tag" or "network".

    Raises: UsageError if timm is not installed or does not know the tag; UnknownName for an unknown network.
    """
    timm = _timm(name)
    architecture, _, tag = name.partition(".")
    known = timm.models.get_pretrained_cfg(architecture) if timm.is_model(architecture) else None
    if known is None:
        raise UnknownName("Network of timm", architecture, timm.list_models())
    if tag and tag not in timm_tags(architecture):
        raise misspelt(f"timm has no weights {tag!r} of {architecture}", tag, timm_tags(architecture))
    return timm.models.get_pretrained_cfg(name)


def timm_tags(architecture: str) -> list[str]:
    """Tags of the weights that timm lists for a network."""
    names = _timm(architecture).list_pretrained(f"{architecture}.*")
    return [name.partition(".")[2] for name in names]


def _timm(name: str) -> ModuleType:
    try:
        import timm
    except ImportError:
        raise UsageError(
            f"{name} needs the package timm: pip install 'timm>=1.0' (or domainbed-gs[timm]), or choose "
            'torchvision\'s ResNet with "resnet50_augmix": false'
        ) from None
    module: ModuleType = timm
    return module
