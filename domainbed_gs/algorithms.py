"""Agr-Sum, Agr-Rand and PCGrad as algorithms: ERM with another rule for combining the gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from domainbed.algorithms.base import DeviceScalar, Minibatch, scalar
from domainbed.algorithms.erm import ERM
from domainbed.errors import UsageError
from domainbed.hparams import Hparam, const
from domainbed.lib.domain_gradients import environment_gradients, set_gradient
from domainbed.lib.seeds import counter_seed, generator
from domainbed_gs import surgery

Stats = dict[str, Tensor | float]


class GradientSurgery(ERM):
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
    WD: ClassVar[tuple[str, ...]] = ("coupled", "decoupled")

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        _check_choice("reduction", hparams["reduction"], ("sum", "mean"))
        _check_choice("wd", hparams["wd"], self.WD)
        super().__init__(input_shape, num_classes, num_domains, hparams)
        # The run's seed, if the global generator was seeded with it as in `train`.
        self.surgery_seed = torch.initial_seed() % 2**63
        self.updates = 0

    def new_optimizer(self) -> optim.Adam:
        if self.hparams["wd"] == "coupled":
            return super().new_optimizer()
        decay = self.hparams["weight_decay"] if self.hparams["wd"] == "decoupled" else 0.0
        return optim.AdamW(self.network.parameters(), lr=self.hparams["lr"], weight_decay=decay)

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        parameters = list(self.network.parameters())
        losses: list[Tensor] = []
        gradient, stats = self.operate(self._gradients(minibatches, parameters, losses), parameters)
        set_gradient(parameters, gradient)
        self.optimizer.step()
        self.updates += 1
        if len(losses) == 1:
            del stats["cosine"]  # there is no pair
        stats = {"loss": torch.stack(losses).mean(), **stats}
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

    def operate(
        self, gradients: Iterator[Tensor], parameters: Sequence[nn.Parameter]
    ) -> tuple[Tensor, Stats]:
        """The combined gradient (P,) and numbers to log."""
        raise NotImplementedError

    def get_extra_state(self) -> dict[str, int]:
        """What the random draws of the next update depend on."""
        return {"surgery_seed": self.surgery_seed, "updates": self.updates}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Take back what `get_extra_state` gave."""
        self.surgery_seed, self.updates = state["surgery_seed"], state["updates"]


class SignSurgery(GradientSurgery):
    """Base of Agr-Sum and Agr-Rand: components where all environments agree in sign are summed.

    Needs three tensors of size P beyond ERM, whatever K.
    """

    HPARAMS = {
        "zero_agrees": Hparam(
            False, const(False), "a component that is 0 everywhere agrees (paper, literally)"
        ),
    }
    WD = ("coupled", "decoupled", "masked")

    def operate(
        self, gradients: Iterator[Tensor], parameters: Sequence[nn.Parameter]
    ) -> tuple[Tensor, Stats]:
        consensus = surgery.sign_consensus(gradients, self.hparams["zero_agrees"])
        kept = torch.where(consensus.agree, consensus.total, 0)
        stats: Stats = {
            "agreement": consensus.agreement,
            "cosine": consensus.cosine,
            "removed": 1 - kept.norm() / consensus.total.norm().clamp_min(1e-30),
        }
        gradient, more = self.resolve(consensus)
        if self.hparams["wd"] == "masked":
            # Adam would pull a weight that never agrees to zero; here decay acts on agreeing ones only.
            weights = torch.cat([parameter.detach().flatten() for parameter in parameters])
            gradient += self.hparams["weight_decay"] * weights * consensus.agree
        return gradient, {**stats, **more}

    def resolve(self, consensus: surgery.Consensus) -> tuple[Tensor, Stats]:
        """The combined gradient (P,) and further numbers to log."""
        raise NotImplementedError


class AgrSum(SignSurgery):
    """Agr-Sum (Mansilla et al., ICCV 2021, section 3.3): where signs disagree the gradient is 0."""

    def resolve(self, consensus: surgery.Consensus) -> tuple[Tensor, Stats]:
        return surgery.agr_sum(consensus, self.hparams["reduction"]), {}


class AgrRand(SignSurgery):
    """Agr-Rand (Mansilla et al., ICCV 2021, section 3.3): where signs disagree the gradient is noise.

    Its standard deviation, logged as `sigma`, is the mean absolute value of the agreeing components; with
    none agreeing there is no noise, and `no_agreement` logs the share of such updates.
    """

    def resolve(self, consensus: surgery.Consensus) -> tuple[Tensor, Stats]:
        noise = torch.Generator(consensus.total.device)
        noise.manual_seed(counter_seed(self.surgery_seed, self.updates))
        gradient = surgery.agr_rand(consensus, noise, self.hparams["reduction"])
        nothing = consensus.agree.any().logical_not().float()
        return gradient, {"sigma": surgery.agr_rand_sigma(consensus), "no_agreement": nothing}


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
        _check_choice("order", hparams["order"], ("independent", "shared", "fixed"))
        super().__init__(input_shape, num_classes, num_domains, hparams)

    def operate(
        self, gradients: Iterator[Tensor], parameters: Sequence[nn.Parameter]
    ) -> tuple[Tensor, Stats]:
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
        return surgery.combine(kept, weights), stats


def _check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UsageError(f"hyper-parameter {name} is one of {', '.join(allowed)}, not {value!r}")
