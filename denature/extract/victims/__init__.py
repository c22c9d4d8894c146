"""Victims that can be queried: one file for each interface; `find` selects one by a name."""
