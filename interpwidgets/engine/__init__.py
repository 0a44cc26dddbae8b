"""The engine: forward passes of an unmodified transformers model, read and edited from inside."""
