"""The labels by which the parts of the project find each other's objects."""

from __future__ import annotations

from typing import Final

MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "aiservice-operator"
"""On everything that the operator makes."""
