"""The artifact: its manifest, its folder, and the memory it takes. Loads no torch, no numpy."""
