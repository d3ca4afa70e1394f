"""Command lines: each parses its flags and calls one function."""
