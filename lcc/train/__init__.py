"""What needs training: retaining heads."""
