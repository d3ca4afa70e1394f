"""Upstream's import path of the query language."""

from domainbed.records.query import Q, hashable, make_selector_fn

__all__ = ["Q", "hashable", "make_selector_fn"]
