"""Recipes, the Lightning module, and the run that joins them."""
