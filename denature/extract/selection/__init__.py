"""Selections of a thief: which images of the pool to query next."""
