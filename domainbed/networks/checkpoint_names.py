"""The network in a checkpoint of a training script, which has more parts than the network and other names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from domainbed.console import shortened_list

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes of networks in `DistributedDataParallel` or an average of weights, and of compiled ones."""

ENCODERS = ("encoder_q.", "base_encoder.", "backbone.")
"""Prefixes of the trained network in checkpoints of MoCo v1 and v2, of MoCo v3, and of other methods."""

PARTS = ("encoder_k", "momentum_encoder", "predictor", "queue", "queue_ptr")
"""Parts of self-supervised methods beside the network, where no prefix tells the network from them."""


@dataclass(frozen=True)
class OwnNames:
    """The tensors of one network by its own names.

    Attributes:
        state: its tensors, by name.
        prefix: what their names began with in the checkpoint; empty for a plain state dict.
        ignored: names of the checkpoint's other tensors.
    """

    state: dict[str, Tensor]
    prefix: str = ""
    ignored: tuple[str, ...] = ()

    def without(self, beginnings: tuple[str, ...]) -> tuple[OwnNames, str]:
        """The same without tensors whose names have one of `beginnings`, and what was changed, in words.

        The words are for a line of a run's output; empty if nothing was changed.
        """
        state = {name: each for name, each in self.state.items() if not name.startswith(beginnings)}
        dropped = [self.prefix + name for name in self.state if name not in state]
        changes = [
            f"prefix {self.prefix} stripped" if self.prefix else "",
            f"last layer dropped: {', '.join(dropped)}" if dropped else "",
            f"ignored: {_by_part(self.ignored)}" if self.ignored else "",
        ]
        return OwnNames(state, self.prefix, self.ignored), "; ".join(filter(None, changes))


def own_names(checkpoint: Mapping[str, Tensor], network: Collection[str] = ()) -> OwnNames:
    """The network in the state dict of a training script.

    Prefixes are stripped in any order and number: `module.encoder_q.` (MoCo v1, v2), `module.base_encoder.`
    (MoCo v3), `module.`, `backbone.`, `_orig_mod.`. Whatever else the checkpoint has beside the names with
    a prefix is ignored: momentum encoders, predictors, queues, heads. A plain state dict stays as it is, but
    for `PARTS`.

    Args:
        checkpoint: its tensors, by name.
        network: names of the network's tensors, if known. In a checkpoint that has them all no name has a
            prefix.
    """
    state, prefix, ignored = dict(checkpoint), "", []
    is_plain = bool(network) and all(name in checkpoint for name in network)
    while not is_plain and (found := _prefix_of(state)):
        ignored += [prefix + name for name in state if not name.startswith(found)]
        state = {name.removeprefix(found): each for name, each in state.items() if name.startswith(found)}
        prefix += found
    parts = [name for name in state if name.partition(".")[0] in PARTS and name not in network]
    ignored += [prefix + name for name in parts]
    return OwnNames({name: state[name] for name in state if name not in parts}, prefix, tuple(ignored))


def _prefix_of(names: Iterable[str]) -> str:
    """The first of the known prefixes that some of `names` have; empty if none has any."""
    return next((each for each in (*WRAPPERS, *ENCODERS) if any(name.startswith(each) for name in names)), "")


def _by_part(names: Iterable[str]) -> str:
    """Names in groups: `module.encoder_k (161 tensors)`, `module.queue`."""
    wrapped = tuple(WRAPPERS)
    counts = Counter(".".join(name.split(".")[: 2 if name.startswith(wrapped) else 1]) for name in names)
    return shortened_list(
        [f"{part} ({number} tensors)" if number > 1 else part for part, number in counts.items()]
    )
