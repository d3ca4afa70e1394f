"""Mean and variance of a group's per-sample gradients, and the diagonal of its Fisher information."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainbed.errors import UsageError
from domainbed.gradients.recording import LayerPass, NotSeparable, Recording
from domainbed_gs.alignment.compressed import SIZE, CompressedVector
from domainbed_gs.alignment.layer_sums import LayerSums, layer_sums

MOMENTS = ("mean", "variance", "fisher")

CHUNK_NUMBERS = 2**20
"""Numbers in the inputs of one pass at most: 6 images of 224 pixels."""

MOST_SAMPLES = 64
"""Samples in one pass at most."""


class GroupMoments:
    """The moments of one group of samples after another, of one network.

    Args:
        network: maps inputs to logits (B, C), each sample independently; in evaluation mode. Its trainable
            parameters are those that matter.
        quantities: which of `MOMENTS` to compute.
        layers: for each vector, the names of the layers that it covers, None for all.
        size: numbers that are kept of each vector (`CompressedVector`).

    Attributes:
        order: names of the layers in the order of their components, once a group was measured.
    """

    def __init__(
        self,
        network: nn.Module,
        quantities: Collection[str],
        layers: Sequence[Collection[str] | None],
        size: int = SIZE,
    ) -> None:
        self._network = network
        self._quantities = [name for name in MOMENTS if name in quantities]
        self._layers = layers
        self._size = size
        self.order: list[str] = []

    def of(self, x: Tensor, y: Tensor, advance: Callable[[], None]) -> list[dict[str, Tensor]]:
        """The (compressed) moments of the gradients of the samples' cross-entropies.

        The Fisher information is exact: the expectation over the classes that the model predicts.

        Args:
            x: inputs (N, ...).
            y: int64 labels (N,).
            advance: called after the last sample.

        Returns: for each of `layers`, quantity -> vector.

        Raises: UsageError if per-sample gradients cannot be formed.
        """
        sums: dict[str, LayerSums] = {}
        chunk = min(MOST_SAMPLES, max(1, CHUNK_NUMBERS // max(1, x[0].numel())))
        for of_x, of_y in zip(x.split(chunk), y.split(chunk), strict=True):
            self._add_chunk(sums, of_x, of_y)
        found = self._vectors(sums, len(y), x)
        advance()
        return found

    def _add_chunk(self, sums: dict[str, LayerSums], x: Tensor, y: Tensor) -> None:
        with_fisher = "fisher" in self._quantities
        try:
            with torch.enable_grad(), Recording(self._network) as recording:
                logits = self._network(x)
                # A sum: the gradient by a sample's output is that of the sample's own loss.
                loss = F.cross_entropy(logits, y, reduction="sum")
            if not sums:
                recording.check_parameter_use(loss)
        except NotSeparable as error:
            raise UsageError(f"per-sample gradients cannot be formed: {error}") from None
        for name, layer_pass in self._passes(recording, loss, with_fisher):
            sums.setdefault(name, layer_sums(layer_pass, with_fisher)).add(layer_pass)
        if not with_fisher:
            return
        log_probabilities = F.log_softmax(logits, dim=1)
        roots = (log_probabilities.detach() / 2).exp()
        classes = logits.shape[1]
        for label in range(classes):
            loss = -(roots[:, label] * log_probabilities[:, label]).sum()
            for name, layer_pass in self._passes(recording, loss, label < classes - 1):
                sums[name].add_fisher(layer_pass)

    @staticmethod
    def _passes(recording: Recording, loss: Tensor, keep_graph: bool) -> list[tuple[str, LayerPass]]:
        return list(recording.backward(loss, keep_graph=keep_graph).items())

    def _vectors(self, sums: dict[str, LayerSums], count: int, like: Tensor) -> list[dict[str, Tensor]]:
        """The vectors of all layers."""
        self.order = list(sums)
        found = [
            {name: CompressedVector(self.components(chosen), like, self._size) for name in self._quantities}
            for chosen in self._layers
        ]
        for layer in self.order:
            for block in sums.pop(layer).moments(count):  # its memory is freed with it
                for chosen, vectors in zip(self._layers, found, strict=True):
                    if chosen is None or layer in chosen:
                        for name, vector in vectors.items():
                            vector.append(block[name])
        return [{name: vector.values for name, vector in vectors.items()} for vectors in found]

    def components(self, layers: Collection[str] | None) -> int:
        """Number of trainable parameters in the named layers."""
        return sum(
            parameter.numel()
            for layer, module in self._network.named_modules()
            if layers is None or layer in layers
            for parameter in module.parameters(recurse=False)
            if parameter.requires_grad
        )
