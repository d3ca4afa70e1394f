"""Sharpness of the pooled loss and of each environment's loss around trained weights (arXiv 2503.23430)."""
