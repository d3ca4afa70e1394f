"""The stages of a network of timm, if it is a chain of modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from domainbed.networks.stages import Stage, in_sequence

_CONTAINERS = ("blocks", "stages", "layers", "features")
"""timm's names of containers of stages."""


def chain_of(network: nn.Module) -> list[Stage]:
    """The stages that the names of a network's modules suggest; see `is_chain`.

    They are the children, and within containers their children. Modules without parameters belong to the
    stage before them.
    """
    if hasattr(network, "blocks") and hasattr(network, "_pos_embed"):
        return _of_transformer(network)
    groups: list[tuple[str, list[nn.Module]]] = []
    for name, module in _expanded(network):
        if groups and not any(True for _ in module.parameters()) and not any(True for _ in module.buffers()):
            groups[-1][1].append(module)
        else:
            groups.append((name, [module]))
    return [Stage(name, in_sequence(modules), modules) for name, modules in groups]


def is_chain(network: nn.Module, stages: Sequence[Stage], input_shape: tuple[int, ...]) -> bool:
    """Whether the stages one after the other compute what the network does, in evaluation mode.

    The mode of `network`, which becomes evaluation mode, is not restored.
    """
    network.eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *input_shape, generator=generator)
    try:
        with torch.no_grad():
            expected: Tensor = network(x.clone())
            for stage in stages:
                x = stage.function(x)
    except Exception:  # the modules of another architecture may take anything
        return False
    # Relative to the largest feature: those of random weights may be tiny.
    return x.shape == expected.shape and bool((x - expected).abs().max() <= 1e-3 * expected.abs().max())


def _expanded(network: nn.Module) -> list[tuple[str, nn.Module]]:
    found: list[tuple[str, nn.Module]] = []
    for name, child in network.named_children():
        if name in _CONTAINERS and isinstance(child, nn.Sequential | nn.ModuleList):
            found += [(f"{name}.{own}", each) for own, each in child.named_children()]
        else:
            found.append((name, child))
    return found


def _of_transformer(network: Any) -> list[Stage]:  # noqa: ANN401 - timm does not annotate its attributes
    """Stages of timm's VisionTransformer: patches with their positions, each block, the head."""

    def embed(x: Tensor) -> Any:  # noqa: ANN401 - as above
        return network.norm_pre(network.patch_drop(network._pos_embed(network.patch_embed(x))))

    def head(x: Tensor) -> Any:  # noqa: ANN401 - as above
        return network.forward_head(network.norm(x))

    children = dict(network.named_children())
    first = ("patch_embed", "pos_drop", "patch_drop", "norm_pre")
    before = [children.pop(name) for name in first if name in children]
    blocks = children.pop("blocks")
    own = [(network, name) for name, _ in network.named_parameters(recurse=False)]
    own += [(network, name) for name, _ in network.named_buffers(recurse=False)]
    return [
        Stage("patch_embed", embed, before, own),
        *(Stage(f"blocks.{i}", block, [block]) for i, block in enumerate(blocks)),
        Stage("head", head, list(children.values())),
    ]
