"""Measurements against other tools, run by hand: figures, not assertions on time."""
