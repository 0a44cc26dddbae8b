"""Views of a live session: no torch, no arithmetic on activations."""
