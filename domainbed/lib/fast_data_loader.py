"""Upstream's import path of the data loaders."""

from domainbed.training.upstream_loaders import (
    FastDataLoader,
    InfiniteDataLoader,
    InfiniteDataLoaderWithoutReplacement,
)

__all__ = ["FastDataLoader", "InfiniteDataLoader", "InfiniteDataLoaderWithoutReplacement"]
