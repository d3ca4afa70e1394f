"""Agr-Sum, Agr-Rand and PCGrad as algorithms: ERM with another rule for combining the gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from domainbed.algorithms.base import DeviceScalar, Minibatch, UpdateCount, scalar
from domainbed.algorithms.erm import ERM
from domainbed.errors import check_choice
from domainbed.hparams import Hparam, const
from domainbed.lib.domain_gradients import environment_gradients, flat, set_gradient, set_values
from domainbed.lib.seeds import counter_seed, generator
from domainbed_gs import surgery

Stats = dict[str, Tensor | float]


@dataclass(frozen=True)
class Operation:
    """What a surgery did.

    Attributes:
        gradient: the combined gradient (P,).
        stats: numbers to log.
        frozen: components (P,) bool whose weights the step must leave as they are; None for none.
    """

    gradient: Tensor
    stats: Stats
    frozen: Tensor | None = None


class GradientSurgery(UpdateCount, ERM):
    """Base: K gradients, one for each source environment, become one, which goes to Adam.

    A subclass says how in `operate`. One update costs one ERM step (a forward and a backward pass for
    each environment) plus a pass over the gradients. Random numbers of the surgery come from generators
    of their own, seeded by the run's seed and the update, so that they depend on nothing else.

    Every update returns, beside `loss` (the mean over environments):
        agreement: share of components in which all environments' signs agree (2^(1-K) by chance);
        cosine: mean cosine similarity over pairs of environments;
        removed: 1 - |g*| / |sum_k g_k|, the share of the summed gradient's norm that the surgery took
            away (noise that it added not counted; negative if the norm grew).
    """

    HPARAMS = {
        "reduction": Hparam("sum", const("sum"), "sum (the papers) or mean: scale of the combined gradient"),
        "shared_dropout": Hparam(False, const(False), "the same dropout masks in every environment"),
        "wd": Hparam("coupled", const("coupled"), "weight decay: coupled (Adam), decoupled (AdamW), masked"),
    }
    STATE = ("surgery_seed",)
    WD: ClassVar[tuple[str, ...]] = ("coupled", "decoupled")

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        check_choice("hyper-parameter reduction is", hparams["reduction"], ("sum", "mean"))
        check_choice("hyper-parameter wd is", hparams["wd"], self.WD)
        super().__init__(input_shape, num_classes, num_domains, hparams)
        # The run's seed, if the global generator was seeded with it as in `train`.
        self.surgery_seed = torch.initial_seed() % 2**63

    def new_optimizer(self, lr: float | None = None) -> optim.Adam:
        if self.hparams["wd"] == "coupled":
            return super().new_optimizer(lr)
        decay = self.hparams["weight_decay"] if self.hparams["wd"] == "decoupled" else 0.0
        lr = self.hparams["lr"] if lr is None else lr
        return optim.AdamW(self.network.parameters(), lr=lr, weight_decay=decay)

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        losses: list[Tensor] = []
        operation = self.operate(self._gradients(minibatches, parameters, losses), parameters)
        set_gradient(parameters, operation.gradient)
        before = None if operation.frozen is None else flat(parameters)
        self.optimizer.step()
        if operation.frozen is not None and before is not None:
            set_values(parameters, torch.where(operation.frozen, before, flat(parameters)))
        self.count_update()
        stats: Stats = {"loss": torch.stack(losses).mean(), **operation.stats}
        if len(losses) == 1:
            del stats["cosine"]  # there is no pair
        return {name: scalar(value) if isinstance(value, Tensor) else value for name, value in stats.items()}

    def _gradients(
        self, minibatches: Sequence[Minibatch], parameters: Sequence[nn.Parameter], losses: list[Tensor]
    ) -> Iterator[Tensor]:
        """The environments' gradients (P,) one by one; their losses are appended to `losses`."""
        shared = self.hparams["shared_dropout"]
        for loss, gradient in environment_gradients(self._loss, minibatches, parameters, shared):
            losses.append(loss)
            yield gradient

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.predict(x), y)

    def operate(self, gradients: Iterator[Tensor], parameters: Sequence[nn.Parameter]) -> Operation:
        """Combine the environments' gradients (P,), which are made as they are asked for."""
        raise NotImplementedError


class SignSurgery(GradientSurgery):
    """Base of Agr-Sum and Agr-Rand: components where all environments agree in sign are summed.

    Needs a few tensors of size P beyond ERM, whatever K.
    """

    HPARAMS = {
        "zero_agrees": Hparam(
            False, const(False), "a component that is 0 everywhere agrees (paper, literally)"
        ),
        "freeze_masked": Hparam(False, const(False), "weights that disagree stay as they are in that step"),
    }
    WD = ("coupled", "decoupled", "masked")

    def operate(self, gradients: Iterator[Tensor], parameters: Sequence[nn.Parameter]) -> Operation:
        consensus = surgery.sign_consensus(gradients, self.hparams["zero_agrees"])
        kept = surgery.agr_sum(consensus)
        stats: Stats = {
            "agreement": consensus.agreement,
            "cosine": consensus.cosine,
            "removed": 1 - kept.norm() / consensus.total.norm().clamp_min(1e-30),
        }
        gradient, more = self.resolve(consensus, kept, [parameter.numel() for parameter in parameters])
        if self.hparams["reduction"] == "mean":
            gradient /= consensus.num_environments
        if self.hparams["wd"] == "masked":
            # Adam would pull a weight that never agrees to zero; here decay acts on agreeing ones only.
            gradient += self.hparams["weight_decay"] * flat(parameters) * consensus.agree
        frozen = ~consensus.agree if self.hparams["freeze_masked"] else None
        return Operation(gradient, {**stats, **more}, frozen)

    def resolve(
        self, consensus: surgery.Consensus, kept: Tensor, sizes: Sequence[int]
    ) -> tuple[Tensor, Stats]:
        """What to do about the components that disagree.

        Args:
            consensus: what the environments agree on.
            kept: the sum where they agree, 0 elsewhere (P,); may be changed in place.
            sizes: number of components of each parameter tensor.

        Returns: the combined gradient (P,), as a sum over environments, and further numbers to log.
        """
        raise NotImplementedError


class AgrSum(SignSurgery):
    """Agr-Sum (Mansilla et al., ICCV 2021, section 3.3): where signs disagree the gradient is 0."""

    def resolve(
        self, consensus: surgery.Consensus, kept: Tensor, sizes: Sequence[int]
    ) -> tuple[Tensor, Stats]:
        return kept, {}


class AgrRand(SignSurgery):
    """Agr-Rand (Mansilla et al., ICCV 2021, section 3.3): where signs disagree the gradient is noise.

    Its standard deviation, logged as `sigma` (a mean, if each tensor has its own), is the mean absolute
    value of the agreeing components; with none agreeing there is no noise, and `no_agreement` logs the
    share of such updates.
    """

    HPARAMS = {
        "sigma": Hparam("network", const("network"), "one sigma for the network, or one for each tensor")
    }

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        check_choice("hyper-parameter sigma is", hparams["sigma"], ("network", "tensor"))
        super().__init__(input_shape, num_classes, num_domains, hparams)

    def resolve(
        self, consensus: surgery.Consensus, kept: Tensor, sizes: Sequence[int]
    ) -> tuple[Tensor, Stats]:
        noise = torch.Generator(consensus.total.device)
        noise.manual_seed(counter_seed(self.surgery_seed, self.updates))
        sigma = surgery.agr_rand_sigma(
            kept, consensus.agree, sizes if self.hparams["sigma"] == "tensor" else None
        )
        nothing = consensus.agree.any().logical_not().float()
        gradient = surgery.agr_rand(kept, consensus.agree, sigma, noise)
        return gradient, {"sigma": sigma.mean(), "no_agreement": nothing}


class PCGrad(GradientSurgery):
    """PCGrad (Yu et al. 2020, arXiv 2001.06782) over environments, as in the ICCV 2021 paper.

    Each environment's gradient is projected onto the normal plane of those it conflicts with, in random
    order; the results are summed. Done on the K x K inner products; holds the K gradients.
    """

    HPARAMS = {
        "order": Hparam("independent", const("independent"), "of projections: independent, shared, fixed"),
        "include_self": Hparam(False, const(False), "an environment visits itself too (some public codes)"),
    }

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        check_choice("hyper-parameter order is", hparams["order"], ("independent", "shared", "fixed"))
        super().__init__(input_shape, num_classes, num_domains, hparams)

    def operate(self, gradients: Iterator[Tensor], parameters: Sequence[nn.Parameter]) -> Operation:
        kept = list(gradients)
        gram = surgery.gram_matrix(kept).cpu().numpy()
        rng = generator(self.surgery_seed, self.updates)
        orders = surgery.pcgrad_orders(len(kept), rng, self.hparams["order"], self.hparams["include_self"])
        weights = surgery.pcgrad_weights(gram, orders)
        norm, total = (max(float(w @ gram @ w), 0.0) ** 0.5 for w in (weights, torch.ones(len(kept)).numpy()))
        stats: Stats = {
            "agreement": surgery.sign_agreement(kept),
            "cosine": surgery.mean_cosine(gram),
            "removed": 1 - norm / max(total, 1e-30),
        }
        if self.hparams["reduction"] == "mean":
            weights = weights / len(kept)
        return Operation(surgery.combine(kept, weights), stats)
