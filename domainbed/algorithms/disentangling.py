"""Methods that separate the features of the environment from those of the label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from domainbed import networks
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Metrics, Minibatch, concatenate, scalar
from domainbed.algorithms.environments import environment_labels
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.optimizers import descend
from domainbed.algorithms.supervised_contrastive import SupConLossLambda
from domainbed.algorithms.update_count import AlternatingUpdates
from domainbed.datasets import by_size
from domainbed.hparams import Hparam, choice, const


@REGISTRY.register()
class ADRMX(AlternatingUpdates):
    """Additive disentanglement of domain features with remix loss (Demirel et al. 2023).

    A second featurizer is trained to recognise the environment. Its features are subtracted from those of the
    first one, and a discriminator must not recognise the environment from the difference. Updates of the
    discriminator and of everything else alternate.

    Draws in the other updates: for each class, `torch.randperm` of its number of samples, on the CPU.
    """

    FACTS = Facts(
        year=2023,
        paper=(
            "Demirel et al., ADRMX: Additive disentanglement of domain features with remix loss, arXiv "
            "2308.06624"
        ),
        idea="Subtracts features of the environment, which a second network learns, from the features",
        time="10 / 9",
        memory="4",
        cost=(
            "A second featurizer with its optimizer, and similarities (B, B) of all samples. Of three "
            "updates by default, two train the discriminator, without a backward pass through the "
            "featurizers."
        ),
        one_environment="without adversary and environment features",
        departures=(
            "As upstream it remixes by wrong indices and ignores `weight_decay`; `remix_within_class` and "
            "`use_weight_decay` correct that. Without a class of two samples the remix loss is 0 "
            "(upstream: an exception)."
        ),
    )

    HPARAMS = {
        "cnt_lambda": Hparam(1.0, const(1.0), "weight of the contrastive losses", at_least=0),
        "dclf_lambda": Hparam(1.0, const(1.0), "weight of the environment classifier's loss", at_least=0),
        "disc_lambda": Hparam(0.75, const(0.75), "weight of the discriminator's loss", at_least=0),
        "rmxd_lambda": Hparam(1.0, const(1.0), "weight of the remix loss", at_least=0),
        "d_steps_per_g_step": Hparam(
            2, const(2), "discriminator updates for each update of the others", at_least=0
        ),
        "beta1": Hparam(0.5, const(0.5), "Adam's decay of the mean gradient", at_least=0),
        "mlp_width": Hparam(256, const(256), "units of the discriminator's layers", at_least=1),
        "mlp_depth": Hparam(9, choice(8, 9, 10), "number of layers of the discriminator", at_least=2),
        "mlp_dropout": Hparam(
            0.0, const(0.0), "dropout probability in the discriminator", at_least=0, at_most=1
        ),
    }
    OPTIMISATION = {
        "lr": by_size(
            small=Hparam(3e-3, choice(5e-4, 1e-3, 2e-3, 3e-3), "learning rate", above=0),
            large=Hparam(3e-5, choice(2e-5, 3e-5, 4e-5, 5e-5), "learning rate", above=0),
        ),
    }
    SWITCHES = {
        "remix_within_class": Hparam(
            False, const(False), "remix two samples of one class; if false, of any classes (as in upstream)"
        ),
        "use_weight_decay": Hparam(
            False, const(False), "apply weight_decay; if false, ignore it (as in upstream)"
        ),
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

    def _optimizer(self, *modules: nn.Module) -> optim.Optimizer:
        weight_decay = self.hparams["weight_decay"] if self.switch("use_weight_decay") else 0.0
        return self.optimizer_for(*modules, lr=self.hparams["lr"], weight_decay=weight_decay)

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        x, y = concatenate(minibatches)
        environments = environment_labels(minibatches)
        trains_discriminator = self.is_discriminator_update()
        # A discriminator update does not use the featurizers' gradients.
        with torch.set_grad_enabled(not trains_discriminator):
            initial = self.featurizer_label(x)
            domain = self.featurizer_domain(x)
            final = initial - domain
        loss_disc = F.cross_entropy(self.discriminator(final), environments)
        if trains_discriminator:
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
        """Loss (0-d) of the final features of one sample plus the domain features of another of its class.

        The sum over the classes with two samples or more, divided by the number of all classes.

        Args:
            final: features (B, d).
            domain: features (B, d) of the second featurizer.
            y: labels (B,).
        """
        pairs = self._remix_pairs(y)
        if not len(pairs):
            return final.new_zeros(())
        first, second = pairs.to(y.device).unbind(dim=1)
        logits = self.classifier_label_1(final[first] + domain[second])
        return F.cross_entropy(logits, y[first], reduction="sum") / self.num_classes

    def _remix_pairs(self, y: Tensor) -> Tensor:
        """Two samples of each class that has two or more, as indices (classes, 2) into the batch, on the CPU.

        Upstream uses indices within the class as indices into the batch; `remix_within_class` corrects that.
        """
        labels = (
            y.cpu()
        )  # the number of draws depends on the labels: the only wait for the device in an update
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
