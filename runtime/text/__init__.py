"""Text: tokenizer, chat template, detokenizer and sampling."""
