"""Ways to make a network harder to fool, as graphs of runs."""
