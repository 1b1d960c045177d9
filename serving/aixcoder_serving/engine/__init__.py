"""Token ids in, token ids out. No tokeniser, no HTTP, no Ray: `interface.py` is what others may rely on."""
