"""Defenses at the outputs: changes of answers before they are shown."""
