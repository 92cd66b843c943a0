"""What is so: observed objects turned into conditions and words. Pure; the clock is passed in."""

from aiservice_operator.status.cache import cache_status
from aiservice_operator.status.service import service_status
from aiservice_operator.status.storage import CacheFacts, ClaimEvent

__all__ = ["CacheFacts", "ClaimEvent", "cache_status", "service_status"]
