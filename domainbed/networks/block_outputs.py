"""The outputs of a featurizer's blocks: recorded, or replaced, while it computes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from domainbed.errors import UsageError
from domainbed.networks.base import FeaturizerModule
from domainbed.networks.stages import StagedFeaturizer


def blocks_of(featurizer: FeaturizerModule, method: str) -> dict[str, nn.Module]:
    """The trained blocks of a featurizer by name, in order.

    Raises: UsageError, which names `method`, if the featurizer has none.
    """
    blocks = featurizer.blocks() if isinstance(featurizer, StagedFeaturizer) else {}
    if not blocks:
        what = "all blocks are frozen" if isinstance(featurizer, StagedFeaturizer) else "it has no blocks"
        raise UsageError(
            f"{method} looks at the outputs of a featurizer's blocks, and of {type(featurizer).__name__} "
            f'{what}; choose another "featurizer", or train more of it'
        )
    return blocks


@contextlib.contextmanager
def recorded(modules: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """A context whose value is the list of the outputs of `modules` inside it, in the order of the calls."""
    outputs: list[Tensor] = []
    with replaced(modules, outputs.append):
        yield outputs


@contextlib.contextmanager
def replaced(modules: Iterable[nn.Module], function: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """A context inside which `function` gets each output of `modules`, and replaces it unless it is None."""
    handles = [
        module.register_forward_hook(lambda _module, _inputs, output: function(output)) for module in modules
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def output_shapes(
    featurizer: nn.Module, modules: Iterable[nn.Module], input_shape: tuple[int, ...]
) -> list[tuple[int, ...]]:
    """Shapes of one sample's outputs of `modules`. Changes neither the featurizer nor random generators."""
    mode = featurizer.training
    featurizer.eval()
    with recorded(modules) as outputs:
        featurizer(torch.zeros(1, *input_shape))
    featurizer.train(mode)
    return [tuple(output.shape[1:]) for output in outputs]
