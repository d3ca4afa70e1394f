"""Kinds of parts that trained models are measured on."""

KINDS = ("in", "out", "test")
"""Training, validation and test samples of an environment, as in `domainbed.training.splits`."""
