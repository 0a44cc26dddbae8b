"""Every causal family of transformers, built tiny and put through the same checks."""
