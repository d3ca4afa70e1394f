"""Gradients of K environments: how they are made, combined and compared."""
