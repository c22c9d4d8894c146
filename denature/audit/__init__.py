"""Audits: every defense against every thief at every budget, worst case, price."""
