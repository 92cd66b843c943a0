"""The operator: turns AIServices and ModelCaches into cached models and serving pods."""

__version__ = "0.1.0"
