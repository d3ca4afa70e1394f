"""Gradient surgery and sharpness: one file a method, found by its decorator `@REGISTRY.register()`."""
