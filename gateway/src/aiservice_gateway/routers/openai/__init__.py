"""The OpenAI-compatible routes."""

from __future__ import annotations

from fastapi import APIRouter

from aiservice_gateway.routers.openai import audio, chat, images, models

router = APIRouter(prefix="/v1", tags=["OpenAI-compatible"])
for _family in (models, images, audio, chat):
    router.include_router(_family.router)
