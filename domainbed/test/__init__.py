"""Helpers that the tests of upstream's forks import."""
