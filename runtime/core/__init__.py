"""Runs an artifact on token ids: buffers, the interpreter of its schedule, state files."""
