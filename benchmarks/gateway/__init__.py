"""What a router adds to a completion, and how much one core of it carries."""
