"""The contract of an algorithm, and the hyper-parameters that all of them share."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from domainbed.datasets import by_size
from domainbed.datasets.minibatch import Minibatch as Minibatch
from domainbed.datasets.minibatch import concatenate as concatenate
from domainbed.errors import UsageError
from domainbed.hparams import Hparam, Kind, Table, Value, choice, const, log2_int, log10_uniform, resolve
from domainbed.process_group import SINGLE_PROCESS, ProcessGroup


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


@runtime_checkable
class Stateful(Protocol):
    """An optimizer, a schedule, a moving average: what has a state of its own."""

    def state_dict(self) -> dict[str, Any]:
        """All of the state."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""


class Algorithm(nn.Module):
    """A domain-generalization algorithm: `update` is one training step, `predict` gives logits.

    Args:
        input_shape: shape of one input.
        num_classes: number of classes.
        num_domains: K, the number of source environments.
        hparams: values for all names in `hparams_table()`; kept as the same object.

    Raises: UsageError if the method needs more source environments than `num_domains`.

    A subclass declares its own hyper-parameters in `HPARAMS`, and those of the optimisation that
    differ from the ones here in `OPTIMISATION`; tables of base classes are inherited. `SWITCHES` are
    hyper-parameters that may be given but stand in no table of values, so that the tables stay
    upstream's; they are read with `switch(name)`.
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
        # Upstream's tables have these two for every algorithm; only ERM++ reads them.
        "lars": Hparam(False, const(False), "LARS as ERM++'s optimizer", kind=Kind.INCIDENTAL),
        "linear_steps": Hparam(
            500, const(500), "ERM++: updates of the classifier alone", at_least=0, kind=Kind.INCIDENTAL
        ),
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

    SWITCHES: ClassVar[Table] = {}
    MIN_DOMAINS: ClassVar[int] = 1
    """Smallest K that the method makes sense for."""
    EQUAL_SIZES: ClassVar[bool] = False
    """Whether all environments' minibatches must have the same number of samples."""
    DISTRIBUTED: ClassVar[bool] = False
    """Whether several processes can share an update, each with some of the source environments: every sum
    over environments goes through `self.process_group`. A class that defines its own `update` or `predict`
    must set this itself."""
    INFERENCE_MODE: ClassVar[bool] = True
    """Whether evaluation may call `predict` under `torch.inference_mode`, which gives the same numbers as
    `torch.no_grad`; False where `predict` keeps tensors that meet gradients later."""
    COMPILABLE: ClassVar[bool] = True
    """Whether the featurizer may be compiled: not where an update differentiates gradients that went
    through it."""
    process_group: ProcessGroup = SINGLE_PROCESS
    """The processes that share the updates."""
    STATE: ClassVar[tuple[str, ...]] = ()
    """Attributes that later updates depend on, beside modules, buffers, and what has a `state_dict`:
    numbers, tensors, or containers of them."""

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        num_domains: int,
        hparams: dict[str, Any],
    ) -> None:
        super().__init__()
        if num_domains < self.MIN_DOMAINS:
            raise UsageError(
                f"{type(self).__name__} needs at least {self.MIN_DOMAINS} source environments, not "
                f"{num_domains}; hold out fewer environments, or choose another algorithm"
            )
        self.hparams = hparams

    @classmethod
    def hparams_table(cls) -> Table:
        """All declarations in order: common ones, the algorithm's own, the optimisation's."""
        return cls._merged("HPARAMS") | cls._merged("OPTIMISATION")

    @classmethod
    def switches_table(cls) -> Table:
        """Declarations of all `SWITCHES`."""
        return cls._merged("SWITCHES")

    @classmethod
    def _merged(cls, attribute: str) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            merged |= base.__dict__.get(attribute, {})
        return merged

    @classmethod
    def can_be_distributed(cls) -> bool:
        """Whether `DISTRIBUTED` was said of this very `update` and `predict`."""
        for base in cls.__mro__:
            if "DISTRIBUTED" in base.__dict__:
                return bool(base.__dict__["DISTRIBUTED"])
            if "update" in base.__dict__ or "predict" in base.__dict__:
                return False
        return False

    def switch(self, name: str) -> Value:
        """The value that a run gives to a switch, or its default."""
        value: Value = self.hparams.get(name, resolve(self.switches_table()[name], "").default)
        return value

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        """One training step, the optimizer's included.

        Args:
            minibatches: one (inputs, labels) a source environment, on the model's device; of the
                environments of this process, where several share the update.
            unlabeled: inputs of the target environments, for domain adaptation only.

        Returns: name -> number, for the records.
        """
        raise NotImplementedError

    def predict(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of inputs (B, *input_shape)."""
        raise NotImplementedError

    def training_state(self) -> dict[str, Any]:
        """All that later updates depend on, but for the global generators of random numbers.

        That is the model, every optimizer, schedule or average that is an attribute or stands in a list
        that is one, and the attributes in `STATE`. Nothing is copied; tensors, numbers, texts and
        containers of them, as `torch.load(..., weights_only=True)` reads them.
        """
        return {
            "model": self.state_dict(),
            "parts": {name: part.state_dict() for name, part in self._parts()},
            "values": {name: getattr(self, name) for name in self._state_names()},
        }

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on where the object that gave `state` was; it had the same arguments."""
        self.load_state_dict(state["model"])
        for name, part in self._parts():
            part.load_state_dict(state["parts"][name])
        for name in self._state_names():
            setattr(self, name, copy.deepcopy(state["values"][name]))

    def _parts(self) -> Iterator[tuple[str, Stateful]]:
        for name, value in vars(self).items():
            if isinstance(value, Stateful):
                yield name, value
            elif isinstance(value, list):
                yield from (
                    (f"{name}.{i}", each) for i, each in enumerate(value) if isinstance(each, Stateful)
                )

    def _state_names(self) -> list[str]:
        return [name for base in type(self).__mro__ for name in base.__dict__.get("STATE", ())]


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


def descend(loss: Tensor, *optimizers: optim.Optimizer, process_group: ProcessGroup = SINGLE_PROCESS) -> None:
    """One step of each of `optimizers` down the gradient of `loss`, summed over `process_group`."""
    for optimizer in optimizers:
        # To None, not to zero: an optimizer leaves alone what has no gradient.
        optimizer.zero_grad()
    loss.backward()
    for optimizer in optimizers:
        process_group.sum_gradients(optimizer)
        optimizer.step()


def environment_losses(logits: Iterable[Tensor], minibatches: Iterable[Minibatch]) -> Tensor:
    """Cross-entropy (K,) of each environment, from its logits (B, num_classes) and minibatch."""
    return torch.stack([F.cross_entropy(z, y) for z, (_, y) in zip(logits, minibatches, strict=True)])


def environment_labels(minibatches: Sequence[Minibatch]) -> Tensor:
    """Which environment each sample of the concatenated minibatches comes from (sum of B,), int64."""
    sizes = torch.tensor([len(y) for _, y in minibatches])
    labels = torch.arange(len(sizes)).repeat_interleave(sizes)
    return labels.to(minibatches[0][1].device, non_blocking=True)
