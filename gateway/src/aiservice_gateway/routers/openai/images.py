"""`/v1/images/*`."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from aiservice_gateway.routers.dependencies import Caller, Running, bearer
from aiservice_gateway.routers.openai.documents import IMAGES, request_body
from aiservice_gateway.routers.openai.forwarding import forward
from aiservice_gateway.services.openai.images import ImageEdit, ImageGeneration

router = APIRouter(prefix="/v1", dependencies=[Depends(bearer)])

_GENERATION = {"model": "sdxl", "prompt": "A beautiful sunset", "size": "1024x1024", "n": 1}
_EDIT = {"model": "sdxl", "prompt": "The same street in winter"}


@router.post(
    "/images/generations",
    summary="Images from text",
    response_class=Response,
    responses=IMAGES,
    openapi_extra=request_body(ImageGeneration, _GENERATION),
)
async def generate_images(request: Request, gateway: Running, caller: Caller) -> Response:
    """Makes images that show what the prompt says."""
    return await forward(request, gateway, caller, ImageGeneration)


@router.post(
    "/images/edits",
    summary="Images from an image and text",
    response_class=Response,
    responses=IMAGES,
    openapi_extra=request_body(ImageEdit, _EDIT),
)
async def edit_image(request: Request, gateway: Running, caller: Caller) -> Response:
    """Changes one image towards what the prompt says; with a mask, where that lets it."""
    return await forward(request, gateway, caller, ImageEdit)
