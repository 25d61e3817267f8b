"""GGUF files: every field and every tensor is used, known to mean nothing, or named in an error."""
