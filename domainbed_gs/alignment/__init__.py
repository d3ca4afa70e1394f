"""How alike environments are in their gradients' means, variances and curvature (arXiv 2109.02934)."""
