"""Upstream's import paths, each a re-export of the thing's home; nothing of ours imports them."""
