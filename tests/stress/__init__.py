"""Several threads, injected faults, a fuzzed wire and re-run cells, on tiny models: `python -m tests.stress`."""
