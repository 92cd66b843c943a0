"""`/v1/models`."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response

from aiservice_gateway.respond import json_response
from aiservice_gateway.routers.dependencies import Caller, Running, bearer
from aiservice_gateway.routers.openai.documents import MODEL, MODELS
from aiservice_gateway.services.openai.models import found, listed

router = APIRouter(prefix="/v1", dependencies=[Depends(bearer)])


@router.get("/models", summary="The services", response_class=Response, responses=MODELS)
async def list_models(gateway: Running, caller: Caller) -> Response:
    """The services that the tenant may use, by the names that `model` takes; `tasks` says what each is for."""
    return json_response(listed(gateway.known_services(caller)))


@router.get("/models/{model:path}", summary="One service", response_class=Response, responses=MODEL)
async def retrieve_model(gateway: Running, caller: Caller, model: str) -> Response:
    """A service by one of its names."""
    return json_response(found(gateway.known_services(caller), model))
