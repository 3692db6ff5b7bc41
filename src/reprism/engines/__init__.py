"""Engines other than PyTorch that run a network."""
