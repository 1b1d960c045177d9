"""Fill-in-the-middle prompts as token ids, and token ids back to text. Needs `tokenizers` only, no torch."""
