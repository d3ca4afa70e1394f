"""Results: records on disk, what selection makes of them, and the tables that show it."""
