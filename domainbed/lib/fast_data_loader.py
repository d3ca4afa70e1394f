"""Upstream's import path of its loaders."""

from domainbed.training.fast_data_loader import (
    FastDataLoader,
    InfiniteDataLoader,
    InfiniteDataLoaderWithoutReplacement,
)

__all__ = ["FastDataLoader", "InfiniteDataLoader", "InfiniteDataLoaderWithoutReplacement"]
