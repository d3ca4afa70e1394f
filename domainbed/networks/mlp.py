"""MLP: fully connected layers, for vectors and small images."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from domainbed.errors import UsageError
from domainbed.hparams import option
from domainbed.networks.options import reads
from domainbed.networks.registry import FEATURIZERS
from domainbed.networks.stages import Stage, StagedFeaturizer


class MLP(StagedFeaturizer):
    """`mlp_depth` linear layers of `mlp_width` units. Dropout and ReLU follow each but the last.

    Args:
        n_inputs: length of an input.
        n_outputs: number of features.
        hparams: optionally `mlp_width`, `mlp_depth` and `mlp_dropout`.
    """

    SAMPLEWISE = True

    def __init__(self, n_inputs: int, n_outputs: int, hparams: dict[str, Any]) -> None:
        super().__init__()
        width = int(option(hparams, "mlp_width"))
        self.input = nn.Linear(n_inputs, width)
        self.dropout = nn.Dropout(float(option(hparams, "mlp_dropout")))
        self.hiddens = nn.ModuleList(
            nn.Linear(width, width) for _ in range(int(option(hparams, "mlp_depth")) - 2)
        )
        self.output = nn.Linear(width, n_outputs)
        self.n_outputs = n_outputs
        self.activation = nn.Identity()

    def stages(self) -> list[Stage]:
        """Each linear layer, with what follows it: input, hidden1, ..., output."""
        stages = [Stage("input", lambda x: self.hidden(self.input, x), [self.input])]
        for i, layer in enumerate(self.hiddens, start=1):
            stages.append(Stage(f"hidden{i}", functools.partial(self.hidden, layer), [layer]))
        return [*stages, Stage("output", self.output, [self.output])]

    def hidden(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Output (B, mlp_width) of a layer that is not the last. All share the dropout but frozen ones."""
        x = layer(x)
        return F.relu(self.dropout(x) if layer.training else x)


class ImageMLP(MLP):
    """The MLP applied to all pixels and channels of an image as one vector."""

    def arrange(self, x: Tensor) -> Tensor:
        return x.flatten(1)


@FEATURIZERS.register("mlp")
@reads("mlp_width", "mlp_depth", "mlp_dropout")
def mlp(input_shape: tuple[int, ...], hparams: dict[str, Any]) -> MLP:
    """A new MLP with `mlp_width` features, for vectors or the pixels of images."""
    if not input_shape:
        raise UsageError(f"featurizer mlp takes vectors and images, not inputs of shape {input_shape}")
    network_class = MLP if len(input_shape) == 1 else ImageMLP
    return network_class(math.prod(input_shape), int(option(hparams, "mlp_width")), hparams)
