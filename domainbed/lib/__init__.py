"""Helper names of upstream, each a re-export of the thing's home, and the shared gradient helper."""
