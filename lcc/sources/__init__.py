"""What a user brings: models, tokenizers and retaining heads, from their files."""
