"""Networks of torchvision and timm, with random weights."""

from __future__ import annotations

from torch import nn

from domainbed.errors import UsageError


def torchvision_network(architecture: str) -> nn.Module:
    """torchvision's network of this name, as initialised by torchvision."""
    from torchvision.models import get_model

    network: nn.Module = get_model(architecture, weights=None)
    return network


def timm_network(name: str, instead: str, num_classes: int = 1000) -> nn.Module:
    """timm's network of this name, as initialised by timm.

    Raises: UsageError if timm is missing; `instead` says what to do without it.
    """
    try:
        import timm
    except ImportError:
        raise UsageError(
            f"{name} needs the package timm: pip install 'timm>=1.0' (or domainbed-gs[timm]); {instead}"
        ) from None
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes)
    return network
