"""The K environments' gradients of one update, as a stream of pieces: three ways to make them.

- One joint pass over all samples, where no layer mixes samples: cheap where linear layers hold most
  parameters.
- A pass for each environment: always right, and as cheap for networks of convolutions. Both need no more
  arithmetic than one ERM step. Batch norm in training mode then sees one environment at a time, which
  is what the gradient of an environment's own loss means.
- Several processes, each with some environments: after its passes each process gets all K gradients by its
  shard of the components.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainbed.datasets.minibatch import Minibatch, concatenate
from domainbed.gradients.layers import layer_gradients
from domainbed.gradients.pieces import Piece, Rows, Span
from domainbed.gradients.recording import Recording, dropout_by_environment
from domainbed.gradients.vectors import Layout
from domainbed.process_group import ProcessGroup

SMALL = 2**18
"""Parameters with fewer components are put together into one piece: each piece costs some calls."""

LossOf = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Passes:
    """What the passes of one update gave.

    Attributes:
        losses: of the environments of this process, detached; (K,) where it is alone.
        pieces: the gradients of all K environments; to be consumed once.
    """

    losses: Tensor
    pieces: Iterator[Piece]


def joint_pass(
    network: nn.Module,
    minibatches: Sequence[Minibatch],
    parameters: Sequence[nn.Parameter],
    seeds: Sequence[int],
    check: bool,
) -> Passes:
    """One forward and one backward pass over all samples, under the cross-entropy.

    Args:
        network: maps inputs (B, ...) to logits (B, C), each sample by itself.
        minibatches: one an environment.
        parameters: the trainable parameters of `network`.
        seeds: seed of each environment's draws, e.g. for dropout.
        check: whether to check that every parameter is used once, by its own layer.

    Raises: NotSeparable.
    """
    x, y = concatenate(minibatches)
    sizes = [len(labels) for _, labels in minibatches]
    with dropout_by_environment(network, sizes, seeds), Recording(network) as recording:
        logits = network(x)
    parts = zip(logits.split(sizes), y.split(sizes), strict=True)
    losses = torch.stack([F.cross_entropy(z, labels) for z, labels in parts])
    total = losses.sum()
    if check:
        recording.check_parameter_use(total)
    passes = recording.backward(total)
    used = {id(each) for layer_pass in passes.values() for each in layer_pass.parameters.values()}
    unused = [i for i, parameter in enumerate(parameters) if id(parameter) not in used]

    def pieces() -> Iterator[Piece]:
        index = {id(parameter): i for i, parameter in enumerate(parameters)}
        layout = Layout(parameters)
        small: dict[int, Rows] = {}
        for name in reversed(list(passes)):
            layer_pass = passes.pop(name)  # its memory is freed with it
            for own, gradients in layer_gradients(layer_pass, sizes).items():
                i = index[id(layer_pass.parameters[own])]
                if isinstance(gradients, Rows) and layout.sizes[i] < SMALL:
                    small[i] = gradients
                else:
                    yield Piece([_span(layout, i)], gradients)
        # A layer that only some updates call counts as 0 in the others, as in separate passes.
        for i in unused:
            small[i] = Rows([parameters[i].new_zeros(layout.sizes[i])] * len(sizes))
        yield from _grouped(layout, [(i, small[i].rows) for i in sorted(small)])

    return Passes(losses.detach(), pieces())


def separate_passes(
    loss_of: LossOf,
    minibatches: Sequence[Minibatch],
    parameters: Sequence[nn.Parameter],
    seeds: Sequence[int],
) -> Passes:
    """A forward and a backward pass for each environment.

    Args:
        loss_of: loss (0-d) of inputs and labels.
        minibatches: one an environment.
        parameters: what to differentiate by; one without a gradient in an environment counts as 0.
        seeds: torch's global generators are seeded with these before each environment's loss.
    """
    losses, gradients = environment_gradients(loss_of, minibatches, parameters, seeds)

    def pieces() -> Iterator[Piece]:
        layout = Layout(parameters)
        of_parameters = [[part.flatten() for part in parts] for parts in zip(*gradients, strict=True)]
        gradients.clear()
        small: list[tuple[int, Sequence[Tensor]]] = []
        for i, rows in enumerate(of_parameters):
            if layout.sizes[i] < SMALL:
                small.append((i, rows))
            else:
                yield Piece([_span(layout, i)], Rows(rows))
        yield from _grouped(layout, small)

    return Passes(losses, pieces())


def shared_passes(
    loss_of: LossOf,
    minibatches: Sequence[Minibatch],
    parameters: Sequence[nn.Parameter],
    seeds: Sequence[int],
    group: ProcessGroup,
) -> Passes:
    """`separate_passes` for this process's environments; the pieces cover its shard of the components."""
    losses, gradients = environment_gradients(loss_of, minibatches, parameters, seeds)
    flat = [torch.cat([part.flatten() for part in parts]) for parts in gradients]
    rows = group.exchange_shards(flat)
    shard = group.shard(len(flat[0]))
    return Passes(losses, iter([Piece([Span(shard.start, shard.stop)], Rows(rows))]))


def environment_gradients(
    loss_of: LossOf,
    minibatches: Sequence[Minibatch],
    parameters: Sequence[nn.Parameter],
    seeds: Sequence[int],
) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    """Losses (K,), detached, and the gradient of each environment's own loss, a tensor for each parameter."""
    losses, gradients = [], []
    for (x, y), seed in zip(minibatches, seeds, strict=True):
        torch.manual_seed(seed)
        loss = loss_of(x, y)
        found = torch.autograd.grad(loss, parameters, materialize_grads=True)
        # The zeros that torch 2.6 makes require gradients.
        gradients.append(tuple(each.detach() for each in found))
        losses.append(loss.detach())
    return torch.stack(losses), gradients


def _span(layout: Layout, parameter: int) -> Span:
    start = layout.starts[parameter]
    return Span(start, start + layout.sizes[parameter])


def _grouped(layout: Layout, small: Sequence[tuple[int, Sequence[Tensor]]]) -> Iterator[Piece]:
    """Pieces of several small parameters each, in their order; (number of the parameter, K gradients)."""
    group: list[tuple[int, Sequence[Tensor]]] = []
    size = 0
    for i, rows in small:
        if group and size + len(rows[0]) > SMALL:
            yield _joined(layout, group)
            group, size = [], 0
        group.append((i, rows))
        size += len(rows[0])
    if group:
        yield _joined(layout, group)


def _joined(layout: Layout, group: Sequence[tuple[int, Sequence[Tensor]]]) -> Piece:
    by_environment = zip(*(rows for _, rows in group), strict=True)
    return Piece([_span(layout, i) for i, _ in group], Rows([torch.cat(parts) for parts in by_environment]))
