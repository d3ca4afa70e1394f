"""Records of runs: append, read and query them, one at a time or for a whole sweep."""
