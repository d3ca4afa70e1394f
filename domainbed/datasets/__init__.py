"""Datasets: one file a source. A dataset is a list of environments with the same classes.

To add one, put a subclass of `MultipleDomainDataset` with `@REGISTRY.register()` into a file of this
package, or into a plugin. A folder `root/environment/class/image`, or a list of files, needs no code: its
path is its name.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed.errors import UnknownName
from domainbed.registry import Registry

if TYPE_CHECKING:
    from domainbed.datasets.base import MultipleDomainDataset as MultipleDomainDataset

    DATASETS: list[str]

UPSTREAM = (
    *("Debug28", "Debug224", "ColoredMNIST", "RotatedMNIST", "VLCS", "PACS", "OfficeHome", "TerraIncognita"),
    *("DomainNet", "SVIRO", "WILDSCamelyon", "WILDSFMoW", "SpawriousO2O_easy", "SpawriousO2O_medium"),
    *("SpawriousO2O_hard", "SpawriousM2M_easy", "SpawriousM2M_medium", "SpawriousM2M_hard"),
)
"""Upstream's datasets in upstream's order, which is the order of tables in reports."""

REGISTRY: Registry[type[MultipleDomainDataset]] = Registry("Dataset", home=__name__, first=UPSTREAM)


def get_dataset_class(name: str) -> type[MultipleDomainDataset]:
    """The class called `name`: a registered one, one that a fork put into this module, or, for the path
    of a folder or of a list of files (.csv, .jsonl), one that reads it.

    Raises: UnknownName (a NotImplementedError), "Dataset not found: <name>".
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
        from domainbed.datasets.list_file import SUFFIXES, list_dataset

        if Path(name).suffix.lower() in SUFFIXES and Path(name).is_file():
            return list_dataset(Path(name))
        raise


def num_environments(name: str) -> int:
    """Number of environments of the dataset called `name`; needs no data."""
    return len(get_dataset_class(name).ENVIRONMENTS)


_BASES = {
    "MultipleDomainDataset": "base",
    "Debug": "debug",
    "MultipleEnvironmentMNIST": "mnist",
    "MultipleEnvironmentImageFolder": "image_folder",
    "WILDSEnvironment": "wilds",
    "WILDSDataset": "wilds",
    "CustomImageFolder": "spawrious",
    "SpawriousBenchmark": "spawrious",
}
"""Upstream's classes that are no datasets by themselves, and the files that hold them."""


def __getattr__(name: str) -> object:
    if name in _BASES:
        return getattr(importlib.import_module(f"{__name__}.{_BASES[name]}"), name)
    if name == "DATASETS":
        # Made once: forks append names to it.
        return globals().setdefault(name, list(REGISTRY))
    if not name.startswith("_") and name in REGISTRY:
        return REGISTRY[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
