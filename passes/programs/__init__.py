"""Programs: cut from the specialized graph, written for a cycle, and rewritten into others."""
