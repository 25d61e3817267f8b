"""Tasks with a known answer, and how many of them a compiled model gets right."""
