"""Which hyper-parameters of a run no part of it reads, and who would read them.

An algorithm reads what it declares (`HPARAMS`, `OPTIMISATION`, `SWITCHES`), and so do a dataset and a
featurizer. The names that upstream declares for every algorithm are among them, whether or not a method reads
them. Featurizers and datasets say in `READS` which optional hyper-parameters they read as well, algorithms
in `unread_hparams` which ones they do not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from domainbed import hparams_registry
from domainbed.console import shortened_list
from domainbed.errors import UsageError
from domainbed.hparams import Hparam, Reader, Table, option, unknown
from domainbed.plugins import is_of_plugin

if TYPE_CHECKING:
    from domainbed.datasets.base import MultipleDomainDataset


def unread(
    algorithm: str,
    dataset_class: type[MultipleDomainDataset],
    typed: Mapping[str, object],
    overrides: Mapping[str, object],
    own: Table,
    options: Mapping[str, Hparam],
) -> dict[str, str]:
    """The names in `typed` that have no effect in a run -> why, as a clause.

    Args:
        algorithm: name of the algorithm.
        dataset_class: class of the dataset.
        typed: values that the user gives.
        overrides: the same with the values of a preset.
        own: declarations of the algorithm, the dataset and the featurizer.
        options: declarations of optional hyper-parameters.
    """
    found = {}
    by_algorithm = hparams_registry.unread_by(algorithm, {**overrides, **typed})
    for name in typed:
        if name in by_algorithm:
            found[name] = by_algorithm[name]
        elif name in own:
            continue
        elif name not in options:
            found[name] = f"neither {algorithm} nor the dataset nor the featurizer declares it"
        elif reason := _why_unread(name, options, dataset_class, overrides):
            found[name] = reason
    return found


def refuse_unread(found: Mapping[str, str], known: Mapping[str, object]) -> None:
    """Raise UsageError for the first of the hyper-parameters that `unread` found; it names who would read it.

    Args:
        found: what `unread` returns.
        known: all names that a run may have, to suggest similar ones for a name that nobody reads.
    """
    for name, reason in found.items():
        readers = list(readers_of(name))
        if not readers and name not in known:
            raise unknown(name, known)
        elsewhere = f". It is read by {shortened_list(readers, most=8)}" if readers else ""
        raise UsageError(
            f"hyper-parameter {name!r} has no effect in this run, because {reason}; leave it out{elsewhere}"
        )


def readers_of(name: str) -> Iterator[str]:
    """Who reads the hyper-parameter `name`, in words. Imports all algorithms, datasets and featurizers."""
    from domainbed.algorithms import REGISTRY as ALGORITHMS
    from domainbed.algorithms.optimizers import CHOICE
    from domainbed.datasets import REGISTRY as DATASETS
    from domainbed.networks import FEATURIZERS

    declared = hparams_registry.options().get(name)
    if declared is not None and declared.only_if is not None:
        other, value = declared.only_if
        yield f"runs with {other!r}: {_json(value)}"
    elif name in CHOICE:
        yield "algorithms whose optimizer a run can choose"
    for kind, registry in (("featurizer", FEATURIZERS), ("dataset", DATASETS)):
        for entry in registry:
            with contextlib.suppress(Exception):  # a plugin that cannot be imported reads nothing
                reader: object = registry[entry]
                if name in (declared_reads(reader) or ()) or name in hparams_registry.own_table(reader):
                    yield f"{kind} {entry}"
    for entry in ALGORITHMS:
        with contextlib.suppress(Exception):
            has = name in hparams_registry.table(entry) or name in hparams_registry.switches(entry)
            if has and name not in hparams_registry.unread_by(entry, {name: True}):
                yield f"algorithm {entry}"


def declared_reads(reader: object) -> tuple[str, ...] | None:
    """The optional hyper-parameters that a featurizer or a dataset class reads; None if it does not say.

    What a plugin's class inherits does not count, since the class may read more.
    """
    reader = getattr(reader, "func", reader)  # of a featurizer "timm:NAME", a partial function
    if isinstance(reader, type) and is_of_plugin(reader):
        found: Any = vars(reader).get("READS")
    else:
        found = getattr(reader, "READS", None)
    return None if found is None else tuple(found)


def _why_unread(
    name: str,
    options: Mapping[str, Hparam],
    dataset_class: type[MultipleDomainDataset],
    overrides: Mapping[str, object],
) -> str:
    """Why no part of a run reads the option `name`, as a clause; empty if one may read it."""
    declared = options[name]
    if declared.only_if is not None:
        other, value = declared.only_if
        actual = overrides.get(other, options[other].default)
        if actual != value:
            return f"{other!r} is {_json(actual)}"
    if declared.reader is Reader.DATASET:
        reads = declared_reads(dataset_class)
        if reads is not None and name not in reads:
            return f"dataset {dataset_class.__name__} does not read it"
    elif declared.reader is Reader.FEATURIZER:
        featurizer = _featurizer(dataset_class, overrides)
        reads = None if featurizer is None else declared_reads(_class_of(featurizer))
        if reads is not None and name not in reads:
            return f"featurizer {featurizer} does not read it"
    return ""


def _json(value: object) -> str:
    """A value as a user types it in JSON, with single quotes as in other messages."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _class_of(featurizer: str) -> object:
    from domainbed.networks import featurizer_class

    return featurizer_class(featurizer)


def _featurizer(dataset_class: type[MultipleDomainDataset], overrides: Mapping[str, object]) -> str | None:
    """Name of the featurizer that a run uses; None if that depends on data or cannot be told."""
    from domainbed.networks.featurizer import by_shape

    name = str(option(overrides, "featurizer"))
    if name != "auto":
        return name
    shape = dataset_class.INPUT_SHAPE
    if shape is None and "input_size" in (declared_reads(dataset_class) or ()):
        side = int(option(overrides, "input_size"))
        shape = (3, side, side)
    if shape is None:
        return None
    with contextlib.suppress(UsageError):  # the run itself says what is wrong
        return by_shape(shape, dict(overrides))
    return None
