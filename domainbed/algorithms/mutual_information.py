"""MIRO: features stay close to those of the pretrained network."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Metrics, Minibatch, concatenate, scalar
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.precision import at_least_float32
from domainbed.hparams import Hparam, choice, const
from domainbed.networks.block_outputs import blocks_of, output_shapes, recorded

_LEAST_VARIANCE = 1e-5
_INITIAL_VARIANCE = 0.1


@REGISTRY.register()
class MIRO(ERM):
    """Mutual information regularisation with oracle (Cha et al. 2022, ECCV).

    A copy of the initial featurizer, usually a pretrained one, stays as it is. The loss is the risk plus
    lambda sum_l R_l over layers l of the featurizer,

        R_l = 1/2 mean of [(a_l - a0_l)^2 / v_l + log v_l],    v_l = softplus(b_l) + 1e-5,

    where a_l and a0_l are the outputs of layer l and of the copy's, and b_l has a value for each channel,
    which is trained with a learning rate `miro_lr_mult` times as high; v_l is 0.1 at first. Weight decay acts
    on b_l too. The mean is over samples, channels and positions alike. Layers are the ends of the
    featurizer's blocks: of a ResNet those of the stem and of its four layers; of a network of timm those of
    its feature info; frozen blocks are left out.

    The copy is in evaluation mode and has no gradient. The published setting has frozen batch norms
    (`freeze_bn`). Logs `loss`, `nll` and `reg_loss`, the sum of R_l.

    Attributes:
        reference: the copy.
        variance_parameters: b_l of each layer, (1, C, 1, 1) for maps (B, C, H, W), (1, 1, C) for tokens
            (B, N, C) and (1, C) for vectors.

    Raises: UsageError if the featurizer has no trained blocks.
    """

    FACTS = Facts(
        year=2022,
        paper=(
            "Cha et al., Domain generalization by mutual-information regularization with pre-trained "
            "models, ECCV, arXiv 2203.10789"
        ),
        idea="The features of each layer stay close to those of the pretrained network",
        time="4 / 3",
        memory="1",
        cost="A forward pass and a copy of the initial featurizer.",
        pretrained=True,
        departures=(
            "The copy is always in evaluation mode (the authors' follows the mode of the network). Layers "
            "of any featurizer with blocks, not of four kinds alone."
        ),
    )

    HPARAMS = {
        "miro_lambda": Hparam(
            0.1, choice(0.001, 0.01, 0.1, 1.0), "lambda, weight of the regularisation", at_least=0
        ),
        "miro_lr_mult": Hparam(
            10.0, const(10.0), "learning rate of the variances, relative to the network's", at_least=0
        ),
        "miro_layers": Hparam(
            "stem_block",
            const("stem_block"),
            "layers: all (stem_block), or all but the first (block)",
            choices=("stem_block", "block"),
        ),
    }

    UPDATES_ONLY = ("reference", "variance_parameters")

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.reference = copy.deepcopy(self.featurizer).requires_grad_(False).eval()
        shapes = output_shapes(self.featurizer, self._layers(self.featurizer), input_shape)
        self.variance_parameters = nn.ParameterList(
            torch.full(_shape_of_variance(shape), _inverse_softplus(_INITIAL_VARIANCE - _LEAST_VARIANCE))
            for shape in shapes
        )
        self.optimizer.add_param_group(
            {"params": list(self.variance_parameters), "lr": hparams["lr"] * hparams["miro_lr_mult"]}
        )

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode. The reference stays in evaluation mode."""
        super().train(mode)
        self.reference.eval()
        return self

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        x, y = concatenate(minibatches)
        with torch.no_grad(), recorded(self._layers(self.reference)) as references:
            self.reference(x)
        with recorded(self._layers(self.featurizer)) as outputs:
            logits = self.predict(x)
        risk = F.cross_entropy(logits, y)
        layers = zip(outputs, references, self.variance_parameters, strict=True)
        regularisation = torch.stack([_regularisation(*layer) for layer in layers]).sum()
        loss = risk + self.hparams["miro_lambda"] * regularisation
        self.step(loss)
        return {"loss": scalar(loss), "nll": scalar(risk), "reg_loss": scalar(regularisation)}

    def _layers(self, featurizer: Any) -> list[nn.Module]:  # noqa: ANN401 - the featurizer, or its copy
        layers = list(blocks_of(featurizer, type(self).__name__).values())
        return layers[1:] or layers if self.hparams["miro_layers"] == "block" else layers


def _regularisation(output: Tensor, reference: Tensor, b: Tensor) -> Tensor:
    """R_l (0-d) of outputs and reference outputs of one shape, and the variance parameter."""
    variance = F.softplus(b) + _LEAST_VARIANCE
    squares = (at_least_float32(output) - at_least_float32(reference)).square()
    return (squares / variance + variance.log()).mean() / 2


def _shape_of_variance(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one value for each channel, for the outputs of one sample: maps, tokens or vectors."""
    channel = 0 if len(shape) == 3 else len(shape) - 1
    return (1, *(size if i == channel else 1 for i, size in enumerate(shape)))


def _inverse_softplus(value: float) -> float:
    return math.log(math.expm1(value))
