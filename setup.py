"""Lets tools that look for a setup.py find the metadata, which stands in pyproject.toml."""

from setuptools import setup

setup()
