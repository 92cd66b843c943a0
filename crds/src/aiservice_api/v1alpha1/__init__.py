"""Version v1alpha1 of the API group `aiservice.dev`."""

from aiservice_api.v1alpha1.ai_service import AIService, AIServiceSpec, AIServiceStatus, Precision
from aiservice_api.v1alpha1.common import API_VERSION, GROUP, VERSION, Condition, ConditionStatus, LastFailure
from aiservice_api.v1alpha1.model_cache import ModelCache, ModelCacheSpec, ModelCacheStatus

__all__ = [
    "API_VERSION",
    "GROUP",
    "VERSION",
    "AIService",
    "AIServiceSpec",
    "AIServiceStatus",
    "Condition",
    "ConditionStatus",
    "LastFailure",
    "ModelCache",
    "ModelCacheSpec",
    "ModelCacheStatus",
    "Precision",
]
