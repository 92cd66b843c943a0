"""The gateway: one authenticated HTTP door to the AI services, with tenant limits and a usage ledger."""

__version__ = "0.1.0"
