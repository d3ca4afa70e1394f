"""Sweeps: many runs in one directory."""
