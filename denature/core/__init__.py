"""Types, errors, seeds, records, statistics and files; imports nothing else of denature."""
