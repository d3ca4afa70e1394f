"""Measurements of the models that runs saved: load them with their data, and measure one after the other."""
