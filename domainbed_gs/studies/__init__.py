"""What studies of gradients and of trained models share: settings, comparisons of methods, tables."""
