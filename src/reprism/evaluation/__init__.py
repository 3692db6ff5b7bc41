"""How well descriptors rank: protocols, exact blocked ranking, metrics."""
