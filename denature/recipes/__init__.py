"""Named runs and tables: what a user can ask for by name."""
