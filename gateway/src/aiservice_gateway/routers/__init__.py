"""The HTTP routes. Each parses, calls one service, and returns."""
