"""Downloading datasets: their sources, how they become the folders that we read, and their verification.

`SOURCES` maps names to `source.Source` declarations. Those of the known datasets are in `sources`. A plugin
adds the source of its own data with `SOURCES["Mine"] = Source(...)`. `install.install` performs all steps.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from domainbed.errors import UnknownName
from domainbed.registry import Registry

if TYPE_CHECKING:
    from domainbed.download.source import Source

SOURCES: Registry[Source] = Registry.of_module(
    "Source", setup=lambda: importlib.import_module("domainbed.download.sources")
)


def source_of(dataset: str) -> Source | None:
    """The source that provides `dataset`, or the source of that name; None for a dataset without a source.

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
    provided = (name for source in SOURCES.values() for name in source.datasets)
    raise UnknownName("Dataset to download", dataset, dict.fromkeys([*SOURCES, *provided]))
