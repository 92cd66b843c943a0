"""Manifests that the API server refuses, each a good one with one thing wrong, and with which words."""

from support.bad_manifests.cases import Case
from support.bad_manifests.models import MODELS
from support.bad_manifests.pods import PODS
from support.bad_manifests.services import SERVICES
from support.bad_manifests.tenants import TENANTS

CASES: tuple[Case, ...] = (*SERVICES, *MODELS, *PODS, *TENANTS)

__all__ = ["CASES", "Case"]
