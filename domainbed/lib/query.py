"""Upstream's import path of `Q`."""

from domainbed.records.query import Q, hashable, make_selector_fn

__all__ = ["Q", "hashable", "make_selector_fn"]
