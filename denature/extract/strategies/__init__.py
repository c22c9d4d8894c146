"""Strategies of a thief: what to ask, what to do with the answers, and which objective to train."""
