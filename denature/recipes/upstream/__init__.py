"""Experiment folders of the official Nasty Teacher repository, read and run unchanged."""
