"""Decoded images in memory: the cache of decoded files, and augmentation of whole minibatches."""
