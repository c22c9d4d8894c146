"""Queries to a victim: pool, budget, ledger, prices, and the reading of answers."""
