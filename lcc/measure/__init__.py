"""Evaluation, benchmarks and verification: users of the public API."""
