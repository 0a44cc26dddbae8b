"""The three widgets in every front end that can run here, on one tiny model and through one scenario."""
