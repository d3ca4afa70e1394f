"""Sharpness-aware methods: gradients at perturbed weights, and the algorithms that use them."""
