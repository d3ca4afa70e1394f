"""Values of hyper-parameters: of a run, of its options, and those that a user gives."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from domainbed.errors import UndeclaredHparam, UsageError, misspelt
from domainbed.escaping import shortened
from domainbed.hparams.declarations import Hparam, Table, resolve
from domainbed.hparams.draws import Value
from domainbed.json_input import DuplicateKey, json_without_duplicates
from domainbed.registry import Registry


class HparamValues(dict[str, Value]):
    """The hyper-parameters of a run, by name. Reading one that no class declares is an error of one line."""

    __slots__ = ()

    def __missing__(self, name: str) -> Value:
        code = sys._getframe(1).f_code
        raise UndeclaredHparam(
            f"{code.co_qualname} ({code.co_filename}) reads the hyper-parameter {name!r}, which is not "
            f"declared; put it into HPARAMS of the algorithm's, dataset's or featurizer's class: "
            f'HPARAMS = {{"{name}": Hparam(default, draw, help)}}'
        )

    def __or__(self, other: Mapping[str, Value]) -> HparamValues:  # type: ignore[override] # of this class
        return HparamValues({**self, **other})


OPTIONS: Registry[Hparam] = Registry.of_module("Hyper-parameter")
"""Optional hyper-parameters such as `featurizer`: any run may set them, but they are in no default table,
so that default tables equal upstream's.

The module that reads an option declares it, `OPTIONS["grey"] = Hparam(...)`, and reads it with `option`.
Only the options of imported modules and of plugins are here; `hparams_registry.options` returns all.
"""


SYNONYMS: Mapping[str, str] = {
    "learning_rate": "lr",
    "learningrate": "lr",
    "lrate": "lr",
    "eta": "lr",
    "wd": "weight_decay",
    "l2": "weight_decay",
    "decay": "weight_decay",
    "bs": "batch_size",
    "minibatch_size": "batch_size",
    "dropout": "resnet_dropout",
    "backbone": "featurizer",
    "model": "featurizer",
    "network": "featurizer",
    "arch": "featurizer",
    "architecture": "featurizer",
    "augmentations": "data_augmentation",
    "optim": "optimizer",
    "opt": "optimizer",
    "scheduler": "schedule",
    "lr_scheduler": "schedule",
    "lr_schedule": "schedule",
    "warmup": "warmup_steps",
}
"""What other projects call hyper-parameters of ours."""


def synonym_in(name: str, known: Iterable[str]) -> str | None:
    """The one of the `known` hyper-parameters that has this name, or that others call so; or None."""
    spelt = name.lower().replace("-", "_")
    return next((each for each in known if each in (name, SYNONYMS.get(spelt))), None)


def unknown(name: str, known: Iterable[str]) -> UsageError:
    """The error for a hyper-parameter that nothing reads; it suggests some of the names in `known`."""
    names = list(known)
    return misspelt(f"unknown hyper-parameter {name!r}", name, names, synonym_in(name, names))


def option(hparams: Mapping[str, Any], name: str) -> Value:
    """The value of the optional hyper-parameter `name`: that in `hparams`, or else its default.

    Raises: UsageError for an invalid value.
    """
    declared = OPTIONS[name]
    return declared.check(name, hparams[name]) if name in hparams else declared.default


def parse_overrides(text: str | None) -> dict[str, object]:
    """The JSON object in `text`, the value of `--hparams`; empty for None.

    Raises: UsageError if `text` is not a JSON object, or has a key twice.
    """
    if text is None:
        return {}
    try:
        overrides = json_without_duplicates(text)
    except DuplicateKey as error:
        raise UsageError(f"--hparams: {error}: {shortened(text)!r}") from None
    except ValueError as error:
        raise UsageError(
            f"--hparams is not valid JSON ({error}): {shortened(text)!r}; write e.g. '{{\"lr\": 0.001}}'"
        ) from None
    if not isinstance(overrides, dict):
        raise UsageError(
            f"--hparams takes a JSON object such as '{{\"lr\": 0.001}}', not {shortened(text)!r}"
        )
    return overrides


def override(hparams: dict[str, Value], overrides: Mapping[str, object], table: Table, dataset: str) -> None:
    """Validate `overrides` and apply them to `hparams`.

    Raises: UsageError for a name that `table` does not have, or an invalid value.
    """
    for name, value in overrides.items():
        if name not in table:
            raise unknown(name, table)
        hparams[name] = resolve(table[name], dataset).check(name, value)
