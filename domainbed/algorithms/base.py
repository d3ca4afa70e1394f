"""The contract of an algorithm, and the hyper-parameters that all of them share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from domainbed.datasets.sizes import by_size
from domainbed.hparams import Hparam, Table, choice, const, log2_int, log10_uniform

Minibatch = tuple[Tensor, Tensor]
"""Inputs (B, *input_shape) and int64 labels (B,) of one environment."""


class DeviceScalar:
    """A number that stays on its device until somebody asks for it (`float()`, NumPy)."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor.detach()

    def __float__(self) -> float:
        return float(self._tensor)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:  # noqa: ANN401 - NumPy's protocol
        return np.asarray(float(self), dtype=dtype)


def scalar(tensor: Tensor) -> float | DeviceScalar:
    """A value to return from `update`: a float on the CPU, elsewhere one that is fetched when needed.

    So that a step costs no synchronisation with the device.
    """
    return tensor.item() if tensor.device.type == "cpu" else DeviceScalar(tensor)


class Algorithm(nn.Module):
    """A domain-generalization algorithm: `update` is one training step, `predict` gives logits.

    Args:
        input_shape: shape of one input.
        num_classes: number of classes.
        num_domains: K, the number of source environments.
        hparams: values for all names in `hparams_table()`; kept as the same object.

    A subclass declares its own hyper-parameters in `HPARAMS`, and those of the optimisation that
    differ from the ones here in `OPTIMISATION`; tables of base classes are inherited.
    """

    HPARAMS: ClassVar[Table] = {
        "data_augmentation": Hparam(True, const(True), "augment the source environments' images"),
        "resnet18": Hparam(
            False, const(False), "ResNet-18 in place of ResNet-50 (needs resnet50_augmix off)"
        ),
        "resnet50_augmix": Hparam(True, const(True), "timm's AugMix weights for ResNet-50"),
        "dinov2": Hparam(False, const(False), "DINOv2 weights for the vision transformer"),
        "vit": Hparam(False, const(False), "a vision transformer as featurizer"),
        "vit_attn_tune": Hparam(False, const(False), "train the attention layers only"),
        "freeze_bn": Hparam(False, const(False), "keep batch norms in evaluation mode"),
        "lars": Hparam(False, const(False), "LARS as ERM++'s optimizer"),
        "linear_steps": Hparam(500, const(500), "ERM++: updates of the classifier alone", at_least=0),
        "resnet_dropout": Hparam(0.0, choice(0.0, 0.1, 0.5), "dropout after the ResNet"),
        "vit_dropout": Hparam(0.0, choice(0.0, 0.1, 0.5), "dropout after the vision transformer"),
        "class_balanced": Hparam(False, const(False), "draw every class equally often"),
        # Upstream draws from [false, false].
        "nonlinear_classifier": Hparam(False, const(False), "three layers instead of one as classifier"),
    }
    OPTIMISATION: ClassVar[Table] = {
        "lr": by_size(
            small=Hparam(1e-3, log10_uniform(-4.5, -2.5), "learning rate", above=0),
            large=Hparam(5e-5, log10_uniform(-5, -3.5), "learning rate", above=0),
        ),
        "weight_decay": by_size(
            small=Hparam(0.0, const(0.0), "coupled (L2) weight decay", at_least=0),
            large=Hparam(0.0, log10_uniform(-6, -2), "coupled (L2) weight decay", at_least=0),
        ),
        "batch_size": by_size(
            small=Hparam(64, log2_int(3, 9), "B, minibatch size of each environment", at_least=1),
            large=Hparam(32, log2_int(3, 5.5), "B, minibatch size of each environment", at_least=1),
            DomainNet=Hparam(32, log2_int(3, 5), "B, minibatch size of each environment", at_least=1),
        ),
    }

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        num_domains: int,
        hparams: dict[str, Any],
    ) -> None:
        super().__init__()
        self.hparams = hparams

    @classmethod
    def hparams_table(cls) -> Table:
        """All declarations in order: common ones, the algorithm's own, the optimisation's."""
        merged: dict[str, Any] = {}
        for attribute in ("HPARAMS", "OPTIMISATION"):
            for base in reversed(cls.__mro__):
                merged |= base.__dict__.get(attribute, {})
        return merged

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        """One training step, the optimizer's included.

        Args:
            minibatches: one (inputs, labels) a source environment, on the model's device.
            unlabeled: inputs of the target environments, for domain adaptation only.

        Returns: name -> number, for the records.
        """
        raise NotImplementedError

    def predict(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of inputs (B, *input_shape)."""
        raise NotImplementedError


class UpdateCount(nn.Module):
    """Mixin: upstream's buffer `update_count` (int64, shape [1]), and its value at no cost.

    The number lives twice, so that reading it never waits for the device.
    """

    update_count: Tensor

    def __init__(self, *args: Any) -> None:  # noqa: ANN401 - those of the algorithm
        super().__init__(*args)
        self.register_buffer("update_count", torch.tensor([0]))
        self.updates = 0
        self.register_load_state_dict_post_hook(UpdateCount._read)  # type: ignore[no-untyped-call] # torch's

    def count_update(self) -> None:
        """One more."""
        self.updates += 1
        self.update_count += 1

    @staticmethod
    def _read(module: nn.Module, _: object) -> None:
        assert isinstance(module, UpdateCount)
        module.updates = int(module.update_count.item())


def concatenate(minibatches: Sequence[Minibatch]) -> Minibatch:
    """The minibatches of all environments as one, in their order."""
    return torch.cat([x for x, _ in minibatches]), torch.cat([y for _, y in minibatches])
