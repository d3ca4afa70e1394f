"""The plugin's scripts."""
