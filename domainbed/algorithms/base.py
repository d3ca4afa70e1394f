"""The contract of an algorithm.

A new algorithm is one class in a file of this package or of a plugin. A method that changes the loss of ERM
subclasses `domainbed.algorithms.erm.ERM`, which builds the featurizer, the classifier and the optimizer:

    @REGISTRY.register()
    class LogitPenalty(ERM):
        '''ERM with a penalty on the size of the logits (Doe 2026, equation 1).'''

        FACTS = Facts(year=2026, paper="Doe, Small logits, TMLR", idea="A penalty on the size of the logits")
        HPARAMS = {
            "penalty": Hparam(0.1, log10_uniform(-3, 0), "weight of the mean squared logit", at_least=0)
        }

        def update(self, minibatches, unlabeled=None):
            x, y = concatenate(minibatches)
            logits = self.predict(x)
            loss = F.cross_entropy(logits, y)
            self.step(loss + self.hparams["penalty"] * logits.square().mean())
            return {"loss": scalar(loss)}

A method with other networks or optimizers subclasses `Algorithm` and builds them in its constructor, its
optimizers by `self.optimizer_over`, so that a run can choose another optimizer and a schedule. The class
attributes of `Algorithm` declare hyper-parameters and what the method needs; each is documented there. Random
numbers come from torch's or NumPy's global generator, which the training loop seeds at each step.

Modules with shared parts: `optimizers` (optimizers by name, one descent step), `schedules` (learning rates
over a run), `environments` (losses and labels of each environment), `update_count` (penalties that start
after some updates, updates of two players in turn), `precision` (full precision under autocast),
`discrepancy` (distances between sets of features), `supervised_contrastive` (similarities of samples).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn, optim

from domainbed.algorithms.facts import Facts
from domainbed.algorithms.optimizers import BETAS, OptimizerChoice, chosen, scale
from domainbed.datasets import by_size
from domainbed.datasets.minibatch import Minibatch as Minibatch
from domainbed.datasets.minibatch import concatenate as concatenate
from domainbed.errors import UsageError
from domainbed.hparams import (
    Hparam,
    Kind,
    Table,
    Value,
    choice,
    const,
    log2_int,
    log10_uniform,
    merged_tables,
    resolve,
)
from domainbed.process_group import SINGLE_PROCESS, ProcessGroup


class DeviceScalar:
    """A number that is copied from its device only when read, by `float()` or NumPy."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor.detach()

    def __float__(self) -> float:
        return float(self._tensor)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:  # noqa: ANN401 - NumPy's protocol
        return np.asarray(float(self), dtype=dtype)


Metrics = Mapping[str, float | DeviceScalar]
"""Numbers of one update, by name, for the records."""


def scalar(tensor: Tensor) -> float | DeviceScalar:
    """The value of a 0-d tensor for `Metrics`: a float on the CPU, a `DeviceScalar` on other devices.

    An update therefore never waits for the device.
    """
    return tensor.item() if tensor.device.type == "cpu" else DeviceScalar(tensor)


@runtime_checkable
class Stateful(Protocol):
    """An object with a state of its own, such as an optimizer, a schedule or a moving average."""

    def state_dict(self) -> dict[str, Any]:
        """The whole state."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state."""


class Algorithm(nn.Module):
    """A domain-generalization algorithm. `update` is one training step, `predict` returns logits.

    Args:
        input_shape: shape of one input.
        num_classes: number of classes.
        num_domains: K, the number of source environments.
        hparams: values of all hyper-parameters in `hparams_table()`, and of any in `switches_table()`. Kept
            without a copy.

    Raises: UsageError if `num_domains` is less than `MIN_DOMAINS`.
    """

    FACTS: ClassVar[Facts | None] = None
    """Paper, idea and costs, for the catalogue. Not inherited; None if a class says nothing of itself."""

    HPARAMS: ClassVar[Table] = {
        "data_augmentation": Hparam(True, const(True), "augment the source environments' images"),
        "resnet18": Hparam(
            False, const(False), "ResNet-18 instead of ResNet-50 (needs resnet50_augmix false)"
        ),
        "resnet50_augmix": Hparam(
            True, const(True), "timm's AugMix weights for ResNet-50", value_before=False
        ),
        "dinov2": Hparam(False, const(False), "DINOv2 weights for the vision transformer"),
        "vit": Hparam(False, const(False), "a vision transformer as featurizer"),
        "vit_attn_tune": Hparam(False, const(False), "train the attention layers only"),
        # Before upstream had this one, batch norms of ResNets were always frozen.
        "freeze_bn": Hparam(False, const(False), "keep batch norms in evaluation mode", value_before=True),
        # Upstream's tables have these two for every algorithm; only ERM++ reads them.
        "lars": Hparam(False, const(False), "LARS as ERM++'s optimizer", kind=Kind.INCIDENTAL),
        "linear_steps": Hparam(
            500,
            const(500),
            "ERM++: updates of the classifier alone",
            at_least=0,
            kind=Kind.INCIDENTAL,
            counts_updates=True,
        ),
        "resnet_dropout": Hparam(
            0.0, choice(0.0, 0.1, 0.5), "dropout probability after the ResNet", at_least=0, at_most=1
        ),
        "vit_dropout": Hparam(
            0.0,
            choice(0.0, 0.1, 0.5),
            "dropout probability after the vision transformer",
            at_least=0,
            at_most=1,
        ),
        "class_balanced": Hparam(False, const(False), "sample all classes equally often"),
        # Upstream draws from [false, false].
        "nonlinear_classifier": Hparam(False, const(False), "three layers instead of one as classifier"),
    }
    """Hyper-parameters of the algorithm. A subclass declares its own; those of base classes are inherited. A
    run has a value for each in `self.hparams`."""

    OPTIMISATION: ClassVar[Table] = {
        "lr": by_size(
            small=Hparam(1e-3, log10_uniform(-4.5, -2.5), "learning rate", above=0),
            large=Hparam(5e-5, log10_uniform(-5, -3.5), "learning rate", above=0),
        ),
        "weight_decay": by_size(
            small=Hparam(0.0, const(0.0), "coupled (L2) weight decay", at_least=0, kind=Kind.SEARCHED),
            large=Hparam(0.0, log10_uniform(-6, -2), "coupled (L2) weight decay", at_least=0),
        ),
        "batch_size": by_size(
            small=Hparam(64, log2_int(3, 9), "B, minibatch size of each environment", at_least=1),
            large=Hparam(32, log2_int(3, 5.5), "B, minibatch size of each environment", at_least=1),
            DomainNet=Hparam(32, log2_int(3, 5), "B, minibatch size of each environment", at_least=1),
        ),
    }
    """Hyper-parameters of the optimisation, inherited as `HPARAMS`. A subclass declares those that differ."""

    SWITCHES: ClassVar[Table] = {}
    """Hyper-parameters that a run may set but that are in no default table, so that default tables equal
    upstream's. Inherited as `HPARAMS`; read with `self.switch(name)`."""

    MIN_DOMAINS: ClassVar[int] = 1
    """Smallest number of source environments that the method can use."""

    EQUAL_SIZES: ClassVar[bool] = False
    """Whether the minibatches of all environments must have the same size."""

    DISTRIBUTED: ClassVar[bool] = False
    """Whether several processes can share an update, each with some of the source environments. Then every
    sum over environments must go through `self.process_group`. A subclass that overrides `update` or
    `predict` has the value False unless it sets this attribute itself."""

    CHANGES_INPUTS: ClassVar[bool] = False
    """Whether `update` or `predict` computes with inputs before a featurizer gets them, such as mixing two of
    them. If not, the inputs of a network with frozen stages may be the cached outputs of these stages."""

    INFERENCE_MODE: ClassVar[bool] = True
    """Whether evaluation may call `predict` under `torch.inference_mode`. False if `predict` keeps tensors
    that a later update differentiates."""

    COMPILABLE: ClassVar[bool] = True
    """Whether the featurizer may be compiled. False if an update differentiates its gradients."""

    TRAINS: ClassVar[bool] = True
    """Whether updates change weights. A method that only predicts needs one update, has no optimizer, and is
    in no sweep of all algorithms."""

    FEATURIZER: ClassVar[str] = ""
    """Name of the only featurizer that the method can use; empty if a run may choose one."""

    NAMES_CLASSES: ClassVar[bool] = False
    """Whether the method reads `class_names`. The run then sets it to those of the dataset."""

    STATE: ClassVar[tuple[str, ...]] = ()
    """Names of attributes that `training_state` has, in addition to those of base classes: numbers, strings,
    tensors, or containers of them. It has parameters, buffers and `Stateful` objects (optimizers, schedules,
    averages), also in lists, without their being named. Checkpoints of a run also have every other attribute
    that changed (`domainbed.training.attributes`), so a plugin need not name any."""

    TRANSIENT: ClassVar[tuple[str, ...]] = ("rate_factor",)
    """Names of attributes that checkpoints leave out, in addition to those of base classes, because later
    updates do not depend on them, such as a cache. Modules and other objects may have such names too."""

    UPDATES_ONLY: ClassVar[tuple[str, ...]] = ()
    """Names of modules and buffers that updates need and `predict` does not, such as a reference network.
    Files of trained models leave their weights out, checkpoints of a run have them."""

    FIXED_RATES: ClassVar[tuple[str, ...]] = ()
    """Names of optimizers whose learning rates a run's schedule leaves as they are, such as that of a problem
    which each update solves anew, and of torch's schedulers that no update steps."""

    rate_factor: float = 1.0
    """The schedule's factor of the learning rates in this update. The training loop sets it."""

    process_group: ProcessGroup = SINGLE_PROCESS
    """The processes that share the updates."""

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401 - Python's protocol
        super().__init_subclass__(**kwargs)
        inherits = all(
            (cls.update, cls.predict) == (base.update, base.predict)
            for base in cls.__bases__
            if issubclass(base, Algorithm)
        )
        if "DISTRIBUTED" not in cls.__dict__ and not inherits:
            cls.DISTRIBUTED = False
        if "FACTS" not in cls.__dict__:
            cls.FACTS = None

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
        """All declarations in order: the common ones, the algorithm's own, those of the optimisation."""
        return merged_tables(cls, "HPARAMS") | merged_tables(cls, "OPTIMISATION")

    @classmethod
    def switches_table(cls) -> Table:
        """Declarations of all `SWITCHES`."""
        return merged_tables(cls, "SWITCHES")

    def switch(self, name: str) -> Value:
        """Value of the hyper-parameter `name` in `SWITCHES`: that in `self.hparams`, or else its default."""
        value: Value = self.hparams.get(name, resolve(self.switches_table()[name], "").default)
        return value

    @classmethod
    def unread_hparams(cls, given: Mapping[str, object]) -> dict[str, str]:
        """Names in `given`, what a user sets, that have no effect with these values -> why, as a clause."""
        is_upstreams = cls.hparams_table()["lars"] is Algorithm.HPARAMS["lars"]
        return {"lars": "only ERMPlusPlus has this optimizer"} if given.get("lars") and is_upstreams else {}

    @classmethod
    def optimizer_choice(cls, hparams: Mapping[str, Any]) -> OptimizerChoice:
        """The optimizer that `hparams` choose. Raises UsageError for options that it does not take."""
        return chosen(hparams, {**cls.hparams_table(), **cls.switches_table()})

    def optimizer_over(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = BETAS,
    ) -> optim.Optimizer:
        """A new optimizer over these parameters, of the class that the run chooses: Adam by default.

        An optimizer that replaces another one during training has the schedule's learning rate.

        Args:
            parameters: what to optimise; there may be none.
            lr: learning rate.
            weight_decay: weight decay.
            betas: those of Adam and its kin, unless the run sets others.
        """
        optimizer = self.optimizer_choice(self.hparams).build(parameters, lr, weight_decay, betas)
        if self.rate_factor != 1.0:
            scale(optimizer, self.rate_factor)
        return optimizer

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        """Take one training step, including the optimizer's.

        Args:
            minibatches: (inputs, labels) of each source environment, on the model's device. If several
                processes share the update, those of this process's environments.
            unlabeled: inputs of each target environment, for domain adaptation; else None.

        Returns: numbers for the records.
        """
        raise NotImplementedError

    def predict(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of inputs (B, *input_shape)."""
        raise NotImplementedError

    def training_state(self) -> dict[str, Any]:
        """The state that later updates depend on, apart from the global random generators.

        It holds parameters, buffers, the states of `Stateful` attributes, and the attributes named in
        `STATE`, without copies. `torch.load(..., weights_only=True)` can read it from a file.
        """
        return {
            "model": self.state_dict(),
            "parts": {name: part.state_dict() for name, part in self.parts()},
            "values": {name: getattr(self, name) for name in self.state_names()},
        }

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Restore `state`, the training state of an algorithm with the same arguments."""
        self.load_state_dict(state["model"])
        for name, part in self.parts():
            part.load_state_dict(state["parts"][name])
        for name in self.state_names():
            setattr(self, name, copy.deepcopy(state["values"][name]))

    def parts(self) -> Iterator[tuple[str, Stateful]]:
        """Name and object of each `Stateful` attribute, and of each item of a list that is one."""
        for name, value in vars(self).items():
            if isinstance(value, Stateful):
                yield name, value
            elif isinstance(value, list):
                yield from (
                    (f"{name}.{i}", each) for i, each in enumerate(value) if isinstance(each, Stateful)
                )

    def state_names(self) -> list[str]:
        """All names in `STATE`."""
        return [name for base in type(self).__mro__ for name in base.__dict__.get("STATE", ())]
