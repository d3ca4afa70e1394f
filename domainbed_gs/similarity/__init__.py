"""Similarity of per-sample gradients within and between environments (section 4.3 of the ICCV 2021 paper)."""
