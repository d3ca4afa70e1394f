"""Hyper-parameters of an algorithm on a dataset, from the declarations of classes and rooms.

A table lists the common entries, then the algorithm's own, then those of the optimisation, then the
dataset's own. Every random
value is drawn from a generator of its own, seeded by the entry's name (docs/compatibility.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from domainbed.errors import UnknownName, UsageError
from domainbed.hparams import OPTIONS, Hparam, Table, Value, merged_tables, resolve
from domainbed.seeds import seed_hash

if TYPE_CHECKING:
    from domainbed.algorithms.base import Algorithm


def table(algorithm: str) -> Table:
    """Declarations of `algorithm`, in order. An unknown name has the common ones only."""
    return _class(algorithm).hparams_table()


def dataset_table(dataset: str) -> Table:
    """Declarations of the dataset itself. An unknown name has none."""
    from domainbed.datasets import get_dataset_class

    try:
        return own_table(get_dataset_class(dataset))
    except UsageError:
        return {}


def featurizer_table(featurizer: str) -> Table:
    """Declarations of the featurizer of this name; "auto" has none."""
    from domainbed.networks import featurizer_class

    found = None if featurizer == "auto" else featurizer_class(featurizer)
    return own_table(found)


def with_only_featurizer(algorithm: str, given: Mapping[str, object]) -> dict[str, object]:
    """Hyper-parameters `given`, with the featurizer of `algorithm` if it can use one only."""
    only = _class(algorithm).FEATURIZER
    return {**given, "featurizer": only} if only else {**given}


def own_table(reader: object) -> Table:
    """Declarations of a featurizer's or a dataset's class itself; a function has none."""
    return merged_tables(reader, "HPARAMS") if isinstance(reader, type) else {}


def switches(algorithm: str) -> Table:
    """Declarations of optional hyper-parameters of `algorithm` itself, which are in no table."""
    return _class(algorithm).switches_table()


def unread_by(algorithm: str, given: Mapping[str, object]) -> dict[str, str]:
    """Names in `given`, what a user sets, that have no effect in a run of `algorithm` -> why, as a clause."""
    return _class(algorithm).unread_hparams(given)


def options() -> Mapping[str, Hparam]:
    """Declarations of optional hyper-parameters that a run of any algorithm takes, by name.

    They are those of optimizers, datasets, networks and plugins, and of every module imported so far.
    """
    # These modules declare their options when they are imported.
    from domainbed.algorithms import optimizers, schedules  # noqa: F401
    from domainbed.datasets import digit_environments, image_transforms  # noqa: F401
    from domainbed.networks import options  # noqa: F401

    return OPTIONS


def _class(algorithm: str) -> type[Algorithm]:
    from domainbed.algorithms import get_algorithm_class
    from domainbed.algorithms.base import Algorithm

    try:
        return get_algorithm_class(algorithm)
    except UnknownName:
        return Algorithm


def _hparams(algorithm: str, dataset: str, random_seed: int) -> dict[str, tuple[Value, Value]]:
    """Name -> (default, random value for `random_seed`). Forks call and patch this; keep it."""
    own, of_dataset = table(algorithm), dataset_table(dataset)
    for name in own.keys() & of_dataset.keys():
        raise UsageError(
            f"algorithm {algorithm} and dataset {dataset} both declare the hyper-parameter {name!r}; "
            "rename it in one of them, or leave it out of the dataset's HPARAMS to read the algorithm's"
        )
    return draw_pairs({**own, **of_dataset}, dataset, random_seed)


def draw_pairs(table: Table, dataset: str, random_seed: int) -> dict[str, tuple[Value, Value]]:
    """Name -> (default, random value for `random_seed`) of each entry of a table."""
    pairs = {}
    for name, declaration in table.items():
        declared = resolve(declaration, dataset)
        random_state = np.random.RandomState(seed_hash(random_seed, name))
        pairs[name] = (declared.default, declared.draw(random_state))
    return pairs


def default_hparams(algorithm: str, dataset: str) -> dict[str, Value]:
    """Name -> default value."""
    return {name: default for name, (default, _) in _hparams(algorithm, dataset, 0).items()}


def random_hparams(algorithm: str, dataset: str, seed: int) -> dict[str, Value]:
    """Name -> random value; `train` passes `seed_hash(hparams_seed, trial_seed)`."""
    return {name: value for name, (_, value) in _hparams(algorithm, dataset, seed).items()}
