"""Other tools as oracles: TransformerLens and nnterp around the weights of the same models."""
