"""Images out of a network, and students from nothing else: DAFL and DeepInversion."""
