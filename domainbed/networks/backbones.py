"""Networks of torchvision and timm, and the featurizer around one that is to be tuned."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Self

from torch import Tensor, nn

from domainbed.errors import UnknownName, UsageError, misspelt
from domainbed.networks.base import FeaturizerModule, Provenance
from domainbed.networks.layout import Layout
from domainbed.networks.options import dropout_rate


class Backbone(FeaturizerModule):
    """A network without its last layer, then dropout.

    Args:
        network: maps inputs (B, *input_shape) to features (B, n_outputs).
        n_outputs: number of features.
        hparams: holds `freeze_bn`, and the rate of the dropout.
        dropout: name of the latter.
        provenance: where the network's weights come from.
    """

    def __init__(
        self,
        network: nn.Module,
        n_outputs: int,
        hparams: dict[str, Any],
        dropout: str,
        provenance: Provenance,
    ) -> None:
        super().__init__()
        self.network: Any = network
        self.layout = Layout(hparams)
        self.n_outputs = n_outputs
        self.hparams = hparams
        self.provenance = provenance
        self.dropout = nn.Dropout(dropout_rate(dropout, hparams[dropout]))
        self.activation = nn.Identity()
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to features (B, n_outputs)."""
        features: Tensor = self.activation(self.dropout(self.network(self.layout(x))))
        return features

    def train(self, mode: bool = True) -> Self:
        """Training mode or not; batch norms stay in evaluation mode if `freeze_bn`."""
        super().train(mode)
        if self.hparams["freeze_bn"]:
            self.freeze_bn()
        return self

    def freeze_bn(self) -> None:
        """Put all batch norms into evaluation mode; their scales and shifts still train."""
        for module in self.network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def tune_attention_alone(network: nn.Module) -> None:
    """Let nothing of `network` train but its attention layers; raises UsageError if it has none."""
    if not has_attention(network):
        raise UsageError('hyper-parameter "vit_attn_tune" needs attention layers, and this network has none')
    for name, parameter in network.named_parameters():
        parameter.requires_grad_("attn" in name)


def has_attention(network: nn.Module) -> bool:
    """Whether `network` has parameters of attention layers, as timm names them."""
    return any("attn" in name for name, _ in network.named_parameters())


def torchvision_network(architecture: str) -> nn.Module:
    """torchvision's network of this name, as initialised by torchvision."""
    from torchvision.models import get_model

    network: nn.Module = get_model(architecture, weights=None)
    return network


def timm_network(name: str, **options: Any) -> nn.Module:  # noqa: ANN401 - timm's own
    """timm's network of this name, as initialised by timm; raises UsageError if timm is missing."""
    network: nn.Module = _timm(name).create_model(name, **options)
    return network


def timm_config(name: str) -> Any:  # noqa: ANN401 - timm's PretrainedCfg, which may be missing
    """What timm knows of a network and its weights, "network.tag" or "network".

    Raises: UsageError if timm is missing, or has no such network (UnknownName) or tag.
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
    """Tags of the weights that timm knows of a network."""
    names = _timm(architecture).list_pretrained(f"{architecture}.*")
    return [name.partition(".")[2] for name in names]


def _timm(name: str) -> ModuleType:
    try:
        import timm
    except ImportError:
        raise UsageError(
            f"{name} needs the package timm: pip install 'timm>=1.0' (or domainbed-gs[timm]), or choose "
            'torchvision\'s ResNet: "resnet50_augmix": false'
        ) from None
    module: ModuleType = timm
    return module
