"""Who can be asked: each file is a way of asking, and `find` tells which one a name means."""
