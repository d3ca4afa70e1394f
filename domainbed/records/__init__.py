"""Records of runs: append, read, query, as a frame."""
