"""Fetching datasets: where each comes from, how it becomes the folders we read, and proof that it did.

`SOURCES` maps names to `source.Source` records; those of the known datasets stand in `sources`. A plugin
adds one for data of its own: `SOURCES["Mine"] = Source(...)`. `install.install` does the whole of it.
"""

from __future__ import annotations

import importlib
import shlex
from typing import TYPE_CHECKING

from domainbed.errors import UnknownName
from domainbed.registry import Registry

if TYPE_CHECKING:
    from domainbed.download.source import Source

SOURCES: Registry[Source] = Registry(
    "Source", setup=lambda: importlib.import_module("domainbed.download.sources")
)


def source_of(dataset: str) -> Source | None:
    """The source that gives `dataset` (a source's own name will do); None if it has none.

    Raises: UnknownName.
    """
    from domainbed.datasets import REGISTRY

    if dataset in SOURCES:
        return SOURCES[dataset]
    for source in SOURCES.values():
        if dataset in source.datasets:
            return source
    if dataset in REGISTRY:
        return None
    served = (name for source in SOURCES.values() for name in source.datasets)
    raise UnknownName("Dataset to download", dataset, dict.fromkeys([*SOURCES, *served]))


def command(dataset: str, data_dir: str | None, *flags: str) -> str:
    """What a user types to have `dataset` fetched; empty for one that no source gives.

    Without a data directory, DATA stands for it.
    """
    if not any(dataset in source.datasets for source in SOURCES.values()):
        return ""
    script = ("python", "-m", "domainbed.scripts.download", "--datasets", dataset)
    return shlex.join([*script, "--data_dir", data_dir or "DATA", *flags])
