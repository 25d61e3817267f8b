"""The demo: a key hidden in a long text, found in a process without torch."""
