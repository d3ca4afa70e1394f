"""One run: settings, data, loop, evaluation, files."""
