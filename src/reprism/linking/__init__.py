"""A network of cameras that links itself: who walks from where to where, and how long that takes, without a label."""
