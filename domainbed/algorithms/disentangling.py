"""Methods that take an environment's features out of a sample's features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from domainbed import networks
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import (
    Algorithm,
    DeviceScalar,
    Minibatch,
    concatenate,
    descend,
    environment_labels,
    scalar,
)
from domainbed.algorithms.supervised_contrastive import SupConLossLambda
from domainbed.algorithms.turns import TakesTurns
from domainbed.datasets import by_size
from domainbed.hparams import Hparam, choice, const


@REGISTRY.register()
class ADRMX(TakesTurns, Algorithm):
    """Additive disentanglement of domain features with remix loss (Demirel et al. 2023, arXiv 2308.06624).

    A second featurizer learns the environment; its features, taken from the first one's, leave features
    from which a discriminator, which has `d_steps_per_g_step` updates to one of the others, cannot tell the
    environment. Needs a second featurizer (twice ERM's time and memory) and B x B similarities; an update
    of the discriminator alone has no backward pass through the featurizers. Draws, in updates of the
    others: randperm(m) on the CPU for each class, m being its number of samples.
    """

    HPARAMS = {
        "cnt_lambda": Hparam(1.0, const(1.0), "weight of the contrastive losses", at_least=0),
        "dclf_lambda": Hparam(1.0, const(1.0), "weight of the environment classifier's loss", at_least=0),
        "disc_lambda": Hparam(0.75, const(0.75), "weight of the discriminator's loss", at_least=0),
        "rmxd_lambda": Hparam(1.0, const(1.0), "weight of the remix loss", at_least=0),
        "d_steps_per_g_step": Hparam(2, const(2), "discriminator's turns to one", at_least=0),
        "beta1": Hparam(0.5, const(0.5), "Adam's decay of the mean gradient", at_least=0),
        "mlp_width": Hparam(256, const(256), "units of the discriminator's layers", at_least=1),
        "mlp_depth": Hparam(9, choice(8, 9, 10), "layers of the discriminator", at_least=2),
        "mlp_dropout": Hparam(0.0, const(0.0), "dropout in the discriminator"),
    }
    OPTIMISATION = {
        "lr": by_size(
            small=Hparam(3e-3, choice(5e-4, 1e-3, 2e-3, 3e-3), "learning rate", above=0),
            large=Hparam(3e-5, choice(2e-5, 3e-5, 4e-5, 5e-5), "learning rate", above=0),
        ),
    }
    SWITCHES = {
        "remix_within_class": Hparam(
            False, const(False), "remix two samples of a class; else (upstream) of any classes"
        ),
        "use_weight_decay": Hparam(False, const(False), "apply weight_decay; else (upstream) ignore it"),
    }

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.num_classes = num_classes
        self.num_domains = num_domains
        self.scl_int = SupConLossLambda()
        self.scl_final = SupConLossLambda()
        self.featurizer_label = networks.Featurizer(input_shape, hparams)
        self.featurizer_domain = networks.Featurizer(input_shape, hparams)
        n_features = self.featurizer_label.n_outputs
        self.discriminator = networks.MLP(n_features, num_domains, hparams)
        self.classifier_label_1 = networks.Classifier(n_features, num_classes, is_nonlinear=True)
        self.classifier_label_2 = networks.Classifier(n_features, num_classes, is_nonlinear=True)
        self.classifier_domain = networks.Classifier(n_features, num_domains, is_nonlinear=True)
        self.network = nn.Sequential(self.featurizer_label, self.classifier_label_1)
        self.disc_opt = self._optimizer(self.discriminator)
        self.opt = self._optimizer(
            self.featurizer_label,
            self.featurizer_domain,
            self.classifier_label_1,
            self.classifier_label_2,
            self.classifier_domain,
        )

    def _optimizer(self, *modules: nn.Module) -> optim.Adam:
        weight_decay = self.hparams["weight_decay"] if self.switch("use_weight_decay") else 0.0
        return self.player(*modules, lr=self.hparams["lr"], weight_decay=weight_decay)

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        x, y = concatenate(minibatches)
        environments = environment_labels(minibatches)
        discriminators_turn = self.discriminators_turn()
        # The discriminator's turns would throw the featurizers' gradients away.
        with torch.set_grad_enabled(not discriminators_turn):
            initial = self.featurizer_label(x)
            domain = self.featurizer_domain(x)
            final = initial - domain
        loss_disc = F.cross_entropy(self.discriminator(final), environments)
        if discriminators_turn:
            descend(loss_disc, self.disc_opt)
            return {"loss_disc": scalar(loss_disc)}
        losses = {
            "loss_cnt_int": self.scl_int(initial, y, environments),
            "loss_cnt_final": self.scl_final(final, y, environments),
            "loss_clf_int": F.cross_entropy(self.classifier_label_1(initial), y),
            "loss_clf_fin": F.cross_entropy(self.classifier_label_2(final), y),
            "loss_dmn": F.cross_entropy(self.classifier_domain(domain), environments),
            "loss_disc": loss_disc,
            "loss_remixed": self._remix_loss(final, domain, y),
        }
        total = self._total(losses)
        descend(total, self.opt)
        return {"loss_total": scalar(total), **{name: scalar(loss) for name, loss in losses.items()}}

    def _total(self, losses: Mapping[str, Tensor]) -> Tensor:
        total: Tensor = (
            losses["loss_clf_int"]
            + losses["loss_clf_fin"]
            + self.hparams["dclf_lambda"] * losses["loss_dmn"]
            + self.hparams["rmxd_lambda"] * losses["loss_remixed"]
            + self.hparams["cnt_lambda"] * (losses["loss_cnt_int"] + losses["loss_cnt_final"])
            - self.hparams["disc_lambda"] * losses["loss_disc"]
        )
        return total

    def _remix_loss(self, final: Tensor, domain: Tensor, y: Tensor) -> Tensor:
        """Loss of a sample's final features (B, d) with the domain features of another of its class.

        The sum over the classes that have two samples, over the number of all classes; 0 if none has two.
        """
        pairs = self._remix_pairs(y)
        if not len(pairs):
            return final.new_zeros(())
        first, second = pairs.to(y.device).unbind(dim=1)
        logits = self.classifier_label_1(final[first] + domain[second])
        return F.cross_entropy(logits, y[first], reduction="sum") / self.num_classes

    def _remix_pairs(self, y: Tensor) -> Tensor:
        """Two samples for each class that has two: positions (classes, 2) in the batch, on the CPU.

        Upstream takes positions within the class for positions in the batch; `remix_within_class` does not.
        """
        labels = y.cpu()  # how much is drawn depends on the labels: the update's one wait for the device
        pairs = []
        for label in range(self.num_classes):
            members = (labels == label).nonzero().flatten()
            drawn = torch.randperm(len(members))[:2]
            if len(drawn) == 2:
                pairs.append(members[drawn] if self.switch("remix_within_class") else drawn)
        return torch.stack(pairs) if pairs else torch.empty(0, 2, dtype=torch.int64)

    def predict(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits
