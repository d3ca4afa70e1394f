"""Upstream's import path of its loaders."""

from domainbed.training.upstream_loaders import (
    FastDataLoader,
    InfiniteDataLoader,
    InfiniteDataLoaderWithoutReplacement,
)

__all__ = ["FastDataLoader", "InfiniteDataLoader", "InfiniteDataLoaderWithoutReplacement"]
