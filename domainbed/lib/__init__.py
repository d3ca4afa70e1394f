"""Upstream's import paths. Each module re-exports names that are defined elsewhere in this package."""
