"""The backends, one client module each. Their own exceptions stop here and become the gateway's."""
