"""Named experiments: the runs, tables and pages that a user can request by name."""
