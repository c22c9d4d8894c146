"""Data-free attacks: images and students from a network alone (DAFL, DeepInversion)."""
