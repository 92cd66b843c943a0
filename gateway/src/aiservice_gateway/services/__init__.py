"""What the gateway does, one module a duty. No module here knows HTTP routes, and none talks to a backend itself."""
