"""Evaluation of descriptors: protocols, exact blocked ranking, metrics."""
