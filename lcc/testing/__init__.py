"""Tiny models and slow oracles, for tests and examples."""
