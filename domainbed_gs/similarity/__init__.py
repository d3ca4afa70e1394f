"""Similarity of per-sample gradients within and between environments (ICCV 2021 paper, section 4.3)."""
