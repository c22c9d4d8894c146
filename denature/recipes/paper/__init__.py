"""Every experiment of the Nasty Teacher paper, by name, at four scales."""
