"""A page that hosts widget modules without Jupyter, and made-up states to show on it."""
