"""lcc, the long-context compiler: reads text of any length in memory fixed at compile time."""

__version__ = "0.1.0"
