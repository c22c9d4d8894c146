"""Readers of images and labels: one file per layout, and the catalogue that selects one."""
