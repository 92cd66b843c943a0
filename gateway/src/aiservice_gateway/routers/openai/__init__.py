"""The OpenAI-compatible routes."""

from __future__ import annotations

from fastapi import APIRouter

from aiservice_gateway.routers.openai import audio, chat, images, models

# The prefix is each family's own: FastAPI tells logs, metrics and spans a route's path as its own router has it.
router = APIRouter(tags=["OpenAI-compatible"])
for _family in (models, images, audio, chat):
    router.include_router(_family.router)
