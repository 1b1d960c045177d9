"""What the Makefile's targets do: `python -m scripts TARGET`, run inside `scripts/environment.sh`."""
