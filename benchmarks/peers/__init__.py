"""What is measured: one driver an engine, each a program in a locked project of its own, and how they talk."""
