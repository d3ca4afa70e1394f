"""MixStyle: the styles of samples, means and deviations of feature maps, are mixed inside the network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Metrics, Minibatch, concatenate, scalar
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.precision import at_least_float32
from domainbed.errors import UsageError, misspelt
from domainbed.hparams import Hparam, choice, const
from domainbed.networks.block_outputs import blocks_of, output_shapes, replaced

_EPS = 1e-6  # added to variances, as in the authors' code
_MOST_LAYERS = 3


def mix_styles(x: Tensor, partners: Tensor, weights: Tensor) -> Tensor:
    """Feature maps with the mean and deviation of each channel mixed with those of a partner.

    Means and (unbiased) variances are over positions, and constants for the gradient.

    Args:
        x: (B, C, H, W), of more than one position.
        partners: (B,) int64, the sample whose style is mixed in.
        weights: (B,), lambda in [0, 1], the share of the sample's own style.
    """
    values = at_least_float32(x)
    variance, mean = torch.var_mean(values.detach(), dim=(2, 3), keepdim=True)
    deviation = (variance + _EPS).sqrt()
    share = weights.to(values.dtype)[:, None, None, None]
    mixed_mean = share * mean + (1 - share) * mean[partners]
    mixed_deviation = share * deviation + (1 - share) * deviation[partners]
    return ((values - mean) / deviation * mixed_deviation + mixed_mean).to(x.dtype)


def random_partners(sizes: Sequence[int]) -> Tensor:
    """A permutation (B,) of all samples; a sample may get one of its own environment, or itself."""
    return torch.randperm(sum(sizes))


def crossdomain_partners(sizes: Sequence[int]) -> Tensor:
    """For each of the B samples, one of another environment.

    Of two equally large environments each sample is the partner of one, as in the authors' code. Otherwise
    partners are drawn uniformly from the other environments' samples, which is our extension.

    Args:
        sizes: number of samples of each environment, at least two environments.
    """
    total = sum(sizes)
    if len(sizes) == 2 and sizes[0] == sizes[1]:
        first, second = torch.arange(total - 1, -1, -1).chunk(2)
        return torch.cat([first[torch.randperm(sizes[0])], second[torch.randperm(sizes[1])]])
    partners, start = [], 0
    for size in sizes:
        drawn = torch.randint(total - size, (size,))
        partners.append(drawn + size * (drawn >= start))
        start += size
    return torch.cat(partners)


@REGISTRY.register()
class MixStyle(ERM):
    """MixStyle (Zhou et al. 2021, ICLR): ERM on features with mixed styles.

    After some blocks of the featurizer, with the probability `mixstyle_p` for each block and update, the mean
    and deviation of each channel become lambda times the sample's own plus 1 - lambda times those of another
    sample, with lambda ~ Beta(alpha, alpha) for each sample. Labels stay. Predictions mix nothing.

    Partners are a random permutation of all samples, or samples of other environments (`mixstyle_mix`
    "crossdomain"; with one environment, random).

    By default styles are mixed after the second block and those that follow, three at most, but not after
    the last: layer1 to layer3 of a ResNet, as in the authors' code for PACS.

    Attributes:
        mixed: names of the blocks after which styles are mixed.

    Raises: UsageError if the featurizer has no such block, or its output is no map of more than one position.
    """

    FACTS = Facts(
        year=2021,
        paper="Zhou et al., Domain generalization with MixStyle, ICLR, arXiv 2104.02008",
        idea="Mixes the means and deviations of feature maps of different samples",
        departures=(
            "`crossdomain` takes any number of environments of any size; the authors' code takes two of "
            "one size."
        ),
    )

    HPARAMS = {
        "mixstyle_p": Hparam(0.5, const(0.5), "probability of mixing, for each block", at_least=0, at_most=1),
        "mixstyle_alpha": Hparam(0.1, choice(0.1, 0.2, 0.3), "alpha of lambda ~ Beta(alpha, alpha)", above=0),
        "mixstyle_mix": Hparam(
            "random",
            const("random"),
            "partners: of all samples (random) or of other environments (crossdomain)",
            choices=("random", "crossdomain"),
        ),
        "mixstyle_layers": Hparam(
            "auto", const("auto"), 'blocks after which styles are mixed, such as "layer1 layer2"'
        ),
    }

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        blocks = blocks_of(self.featurizer, "MixStyle")
        shapes = dict(zip(blocks, output_shapes(self.featurizer, blocks.values(), input_shape), strict=True))
        maps = [name for name, shape in shapes.items() if len(shape) == 3 and shape[1] * shape[2] > 1]
        self.mixed = self._chosen(list(blocks), maps)

    def _chosen(self, names: list[str], maps: list[str]) -> tuple[str, ...]:
        """The blocks after which styles are mixed, of those called `names`, of which `maps` can be."""
        wanted = str(self.hparams["mixstyle_layers"])
        if wanted == "auto":
            found = [name for name in names[1:-1] if name in maps][:_MOST_LAYERS]
            if not found:
                who = type(self.featurizer).__name__
                raise UsageError(
                    f"MixStyle finds no feature maps after the inner blocks of {who} ({', '.join(names)}); "
                    'choose a convolutional "featurizer", or name "mixstyle_layers"'
                )
            return tuple(found)
        for name in wanted.split():
            if name not in names:
                raise misspelt(f"mixstyle_layers: unknown block {name!r}", name, names)
            if name not in maps:
                raise UsageError(
                    f"mixstyle_layers: the output of block {name} is no map of more than one position; "
                    f"choose among {', '.join(maps) or 'those of another featurizer'}"
                )
        return tuple(wanted.split())

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        x, y = concatenate(minibatches)
        with replaced(self._mixed_modules(), partial(self._mix, [len(labels) for _, labels in minibatches])):
            logits = self.predict(x)
        loss = F.cross_entropy(logits, y)
        self.step(loss)
        return {"loss": scalar(loss)}

    def _mixed_modules(self) -> list[nn.Module]:
        blocks = blocks_of(self.featurizer, "MixStyle")
        return [blocks[name] for name in self.mixed]

    def _mix(self, sizes: Sequence[int], x: Tensor) -> Tensor | None:
        """`x` (B, C, H, W) with mixed styles; None, which leaves it, with the probability 1 - p."""
        if torch.rand(()).item() >= self.hparams["mixstyle_p"]:  # drawn on the CPU: nothing waits
            return None
        alpha = float(self.hparams["mixstyle_alpha"])
        weights = torch.distributions.Beta(alpha, alpha).sample((len(x),))
        crossdomain = self.hparams["mixstyle_mix"] == "crossdomain" and len(sizes) > 1
        partners = crossdomain_partners(sizes) if crossdomain else random_partners(sizes)
        return mix_styles(
            x, partners.to(x.device, non_blocking=True), weights.to(x.device, non_blocking=True)
        )
