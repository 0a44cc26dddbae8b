"""Measurements against other tools: figures, not assertions on time. `make bench` runs them all."""
