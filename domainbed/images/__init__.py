"""Images held as bytes: a cache of decoded files, and augmentation of many images at once."""
