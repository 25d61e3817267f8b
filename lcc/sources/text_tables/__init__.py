"""A tokenizer compiled to tables: `tokenizer.json` in, `text.bin` out (docs/format.md)."""
