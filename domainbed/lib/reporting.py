"""Upstream's import path of the functions that load and group records."""

from domainbed.records.sweep_records import get_grouped_records, load_records

__all__ = ["get_grouped_records", "load_records"]
