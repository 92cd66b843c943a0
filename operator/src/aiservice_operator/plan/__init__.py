"""What to do: desired compared with observed. Pure; a plan is data."""

from aiservice_operator.plan.actions import Action, Apply, Delete, Refusal, Scale
from aiservice_operator.plan.bodies import Bodies
from aiservice_operator.plan.cache import plan_cache
from aiservice_operator.plan.download import CachePlan, CacheView
from aiservice_operator.plan.service import ServicePlan, ServiceView, plan_service
from aiservice_operator.refusals import Rejection

__all__ = [
    "Action",
    "Apply",
    "Bodies",
    "CachePlan",
    "CacheView",
    "Delete",
    "Refusal",
    "Rejection",
    "Scale",
    "ServicePlan",
    "ServiceView",
    "plan_cache",
    "plan_service",
]
