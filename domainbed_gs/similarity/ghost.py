"""All pairs of N per-sample gradients, without the gradients: "ghost" products, layer by layer.

A linear layer's gradient of one sample is an outer product b a^T. Inner products of such, and counts of
components with equal signs, are products of those of the factors: <b_i a_i^T, b_j a_j^T> =
<a_i, a_j> <b_i, b_j>, and sgn(b a^T) = sgn(b) sgn(a)^T. AlexNet's three linear layers, 55 of its 57 million
parameters, are done so.

Where a sample has several positions, as in a convolution, its gradient is a sum of outer products. The inner
product could still do without it; its signs cannot. There the gradients are made in blocks of components, all
samples at once, and each block is freed before the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainbed.errors import UsageError
from domainbed.gradients.comparison import any_is_zero, signs_agree
from domainbed.gradients.recording import LayerPass, NotSeparable, Recording
from domainbed_gs.similarity.layers import factors, per_sample_gradients

BLOCK = 2**24
"""Numbers of a block at most: 64 MiB in float32, where counts up to it are exact."""


@dataclass
class Pairwise:
    """What N per-sample gradients, of the samples of K environments, have in common; sums over layers.

    Attributes:
        gram: inner products (N, N) float64.
        equal: number of components in which both signs are the same and not 0 (N, N) float64.
        nonzero: number of components in which neither gradient is 0 (N, N) float64.
        consensus: number of components in which the signs of all K environments' mean gradients are the
            same and not 0; float64, 0-d.
        zeros: number of components in which an environment's mean gradient is 0; float64, 0-d.
        components: P, the number of components.
    """

    gram: Tensor
    equal: Tensor
    nonzero: Tensor
    consensus: Tensor
    zeros: Tensor
    components: int = 0


def pairwise(network: nn.Module, x: Tensor, y: Tensor, sizes: Sequence[int]) -> Pairwise:
    """Compare the gradients of all samples' own cross-entropies by the trainable parameters of `network`.

    Args:
        network: maps inputs to logits, each sample for itself; its mode is left as it is.
        x: inputs (N, *input_shape), those of the K environments one after the other.
        y: int64 labels (N,).
        sizes: number of samples of each environment; they sum to N.

    Raises: UsageError if the network mixes samples, or has a layer that this cannot be done for.
    """
    zeros = torch.zeros(len(x), len(x), dtype=torch.float64, device=x.device)
    counts = zeros.new_zeros(2)
    result = Pairwise(zeros, zeros.clone(), zeros.clone(), *counts)
    passes = _passes(network, x, y)
    while passes:
        _, layer_pass = passes.popitem()  # its memory is freed with it
        _add_layer(result, layer_pass, sizes)
    return result


def _passes(network: nn.Module, x: Tensor, y: Tensor) -> dict[str, LayerPass]:
    try:
        with torch.enable_grad(), Recording(network) as recording:
            # A sum: the gradient by a sample's output is that of the sample's own loss.
            loss = F.cross_entropy(network(x), y, reduction="sum")
        recording.check_parameter_use(loss)
    except NotSeparable as error:
        raise UsageError(f"per-sample gradients cannot be formed: {error}") from None
    return recording.backward(loss)


def _add_layer(result: Pairwise, layer_pass: LayerPass, sizes: Sequence[int]) -> None:
    pair = factors(layer_pass)
    if pair is None:
        _add_gradients(result, per_sample_gradients(layer_pass), sizes)
        return
    a, b = pair
    if "bias" in layer_pass.parameters:
        _add_gradients(result, b.sum(3).flatten(1), sizes)
    if "weight" not in layer_pass.parameters:
        return
    if a.shape[3] == 1:
        _add_outer_products(result, a.squeeze(3), b.squeeze(3), sizes)
        return
    for rows in b.split(_rows(len(a), a), dim=2):
        _add_gradients(result, torch.einsum("ngqt,ngpt->ngqp", rows, a).flatten(1), sizes)


def _add_gradients(result: Pairwise, gradients: Tensor, sizes: Sequence[int]) -> None:
    """Add per-sample gradients by some components (N, m)."""
    result.gram += gradients @ gradients.T
    signs = gradients.sign()
    nonzero = signs.abs()
    _count_signs(result, signs @ signs.T, nonzero @ nonzero.T)
    _count_means(result, [part.sum(0) for part in gradients.split(list(sizes))])
    result.components += gradients.shape[1]


def _add_outer_products(result: Pairwise, a: Tensor, b: Tensor, sizes: Sequence[int]) -> None:
    """Add the outer products b a^T of each sample; a is (N, G, p) and b (N, G, q)."""
    result.gram += _inner_products(a, b)
    signs = (a.sign(), b.sign())
    _count_signs(result, _inner_products(*signs), _inner_products(signs[0].abs(), signs[1].abs()))
    inputs = a.split(list(sizes))
    for rows in b.split(_rows(len(sizes), a), dim=2):
        pairs = zip(inputs, rows.split(list(sizes)), strict=True)
        means = [torch.einsum("ngq,ngp->gqp", b_k, a_k) for a_k, b_k in pairs]
        _count_means(result, means)
    result.components += a.shape[1] * a.shape[2] * b.shape[2]


def _count_signs(result: Pairwise, products: Tensor, nonzero: Tensor) -> None:
    """Add what follows from inner products (N, N) of signs, and of their absolute values."""
    result.equal += (products + nonzero) / 2
    result.nonzero += nonzero


def _count_means(result: Pairwise, means: Sequence[Tensor]) -> None:
    """Add signs of the K environments' mean gradients by some components."""
    result.consensus += signs_agree(means).sum()
    result.zeros += any_is_zero(means).sum()


def _inner_products(a: Tensor, b: Tensor) -> Tensor:
    """Inner products (N, N) float64 of the N outer products b a^T; a is (N, G, p) and b (N, G, q)."""
    of_a, of_b = (torch.einsum("igc,jgc->ijg", factor, factor) for factor in (a.double(), b.double()))
    return (of_a * of_b).sum(2)


def _rows(gradients: int, a: Tensor) -> int:
    """Of how many outputs in each group so many gradients fill a block, given the factor (N, G, p, ...)."""
    return max(1, BLOCK // (gradients * a.shape[1] * a.shape[2]))
