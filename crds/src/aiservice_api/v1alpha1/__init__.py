"""Version v1alpha1 of the API group `aiservice.dev`."""

from aiservice_api.v1alpha1.ai_service import (
    AIService,
    AIServiceSpec,
    AIServiceStatus,
    GatewaySpec,
    ModelCacheRef,
    Precision,
    Timings,
)
from aiservice_api.v1alpha1.common import (
    API_VERSION,
    GROUP,
    VERSION,
    Condition,
    ConditionStatus,
    LastFailure,
    ObjectMeta,
)
from aiservice_api.v1alpha1.container import EngineSpec, EnvVar, EnvVarSource, KeyRef, Resources
from aiservice_api.v1alpha1.model_cache import (
    DownloadStatus,
    ModelCache,
    ModelCacheSpec,
    ModelCacheStatus,
    Storage,
)
from aiservice_api.v1alpha1.sources import HttpFile, HttpSource, HuggingFaceSource, PvcSource, SecretKeyRef

__all__ = [
    "API_VERSION",
    "GROUP",
    "VERSION",
    "AIService",
    "AIServiceSpec",
    "AIServiceStatus",
    "Condition",
    "ConditionStatus",
    "DownloadStatus",
    "EngineSpec",
    "EnvVar",
    "EnvVarSource",
    "GatewaySpec",
    "HttpFile",
    "HttpSource",
    "HuggingFaceSource",
    "KeyRef",
    "LastFailure",
    "ModelCache",
    "ModelCacheRef",
    "ModelCacheSpec",
    "ModelCacheStatus",
    "ObjectMeta",
    "Precision",
    "PvcSource",
    "Resources",
    "SecretKeyRef",
    "Storage",
    "Timings",
]
