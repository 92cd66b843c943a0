"""Fixtures that every test may ask for. They need nothing beyond pytest, so they load in every environment."""

pytest_plugins = ["support.cluster", "support.databases"]
