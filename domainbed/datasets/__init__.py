"""Datasets of several environments that share their classes.

To add one, put a subclass of `MultipleDomainDataset` decorated with `@REGISTRY.register()` into a module of
this package or into a plugin. A folder `root/environment/class/image` or a list of image files needs no
code: its path is the dataset's name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed.errors import UnknownName, UsageError
from domainbed.hparams import Hparam
from domainbed.registry import Registry

if TYPE_CHECKING:
    from domainbed.datasets.base import MultipleDomainDataset as MultipleDomainDataset

    DATASETS: list[str]

UPSTREAM = (
    "Debug28",
    "Debug224",
    "ColoredMNIST",
    "RotatedMNIST",
    "VLCS",
    "PACS",
    "OfficeHome",
    "TerraIncognita",
    "DomainNet",
    "SVIRO",
    "WILDSCamelyon",
    "WILDSFMoW",
    "SpawriousO2O_easy",
    "SpawriousO2O_medium",
    "SpawriousO2O_hard",
    "SpawriousM2M_easy",
    "SpawriousM2M_medium",
    "SpawriousM2M_hard",
)
"""Upstream's datasets in upstream's order, which is the order of tables in reports."""

REGISTRY: Registry[type[MultipleDomainDataset]] = Registry.of_module("Dataset", home=__name__, first=UPSTREAM)


def get_dataset_class(name: str) -> type[MultipleDomainDataset]:
    """The dataset class called `name`.

    Args:
        name: name of a registered class or of one that a fork assigned to this module, or the path of a
            folder or of a list of image files (.csv, .jsonl).

    Raises: UnknownName (a NotImplementedError), "Dataset not found: <name>"; UsageError for a folder or file
        that is no dataset.
    """
    from domainbed.datasets.base import MultipleDomainDataset

    own = globals().get(name)
    if isinstance(own, type) and issubclass(own, MultipleDomainDataset):
        return own
    try:
        return REGISTRY[name]
    except UnknownName:
        if Path(name).is_dir():
            from domainbed.datasets.image_folder import folder_dataset

            return folder_dataset(Path(name))
        if Path(name).is_file():
            from domainbed.datasets.list_file import list_dataset

            return list_dataset(Path(name))
        raise


def in_order(names: Iterable[str]) -> list[str]:
    """`names` without duplicates: those in `DATASETS` in its order, then others by name."""
    found = set(names)
    listed = [name for name in globals().get("DATASETS", REGISTRY) if name in found]
    return [*listed, *sorted(found.difference(listed))]


def with_classes(dataset_class: type[MultipleDomainDataset], classes: str) -> type[MultipleDomainDataset]:
    """The class of a folder or list whose environments must have the same classes, or may lack some.

    Args:
        dataset_class: a dataset class.
        classes: "same", which changes nothing, or "union".

    Raises: UsageError for "union" and a dataset that is no folder or list.
    """
    from domainbed.datasets.image_folder import FolderDataset
    from domainbed.datasets.list_file import ListFileDataset

    if classes == "same":
        return dataset_class
    if not issubclass(dataset_class, FolderDataset | ListFileDataset):
        raise UsageError(
            f"--classes {classes} is for folders and lists; the classes of {dataset_class.__name__} are fixed"
        )
    members = {"SAME_CLASSES": False, "__doc__": dataset_class.__doc__, "__module__": __name__}
    return type(dataset_class.__name__, (dataset_class,), members)


def num_environments(name: str) -> int:
    """Number of environments of the dataset called `name`; needs no data."""
    return len(get_dataset_class(name).ENVIRONMENTS)


def has_small_images(name: str) -> bool:
    """Whether the registered dataset `name` has small images. As in upstream, unknown names do not."""
    try:
        return REGISTRY[name].SMALL_IMAGES
    except UnknownName:
        return False


def by_size(small: Hparam, large: Hparam, **named: Hparam) -> Callable[[str], Hparam]:
    """Declaration of a hyper-parameter that depends on the dataset.

    Args:
        small: for datasets of small images.
        large: for all others.
        named: for the datasets of these names.
    """

    def declare(dataset: str) -> Hparam:
        return named.get(dataset) or (small if has_small_images(dataset) else large)

    return declare


_BASE_CLASSES = {
    "MultipleDomainDataset": "base",
    "Debug": "debug",
    "MultipleEnvironmentMNIST": "mnist",
    "MultipleEnvironmentImageFolder": "image_folder",
    "WILDSEnvironment": "wilds",
    "WILDSDataset": "wilds",
    "CustomImageFolder": "spawrious",
    "SpawriousBenchmark": "spawrious",
}
"""Upstream's unregistered classes, which this module resolves on first use -> their modules."""


def __getattr__(name: str) -> object:
    if name in _BASE_CLASSES:
        return getattr(importlib.import_module(f"{__name__}.{_BASE_CLASSES[name]}"), name)
    if name == "DATASETS":
        # One list for the whole process, because forks append names to it.
        return globals().setdefault(name, list(REGISTRY))
    if not name.startswith("_") and name in REGISTRY:
        return REGISTRY[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
