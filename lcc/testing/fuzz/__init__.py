"""Damaged files of every kind, each used in a process of its own: `python -m lcc.testing.fuzz`."""
