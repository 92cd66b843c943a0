"""Builds the container images: `python3 -m images`, started by scripts/images. Standard library only."""
