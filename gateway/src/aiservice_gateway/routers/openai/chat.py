"""`/v1/chat/completions`."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from aiservice_gateway.routers.dependencies import Caller, Running, bearer
from aiservice_gateway.routers.openai.documents import COMPLETION, PICTURE_URL, request_body
from aiservice_gateway.routers.openai.forwarding import forward
from aiservice_gateway.services.openai.chat import Chat

router = APIRouter(prefix="/v1", dependencies=[Depends(bearer)])

_QUESTION = {
    "model": "blip2",
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is on the sign?"},
                {"type": "image_url", "image_url": {"url": PICTURE_URL}},
            ],
        }
    ],
}


@router.post(
    "/chat/completions",
    summary="A caption, or an answer about an image",
    response_class=Response,
    responses=COMPLETION,
    openapi_extra=request_body(Chat, _QUESTION),
)
async def complete_chat(request: Request, gateway: Running, caller: Caller) -> Response:
    """Says what an image shows, reads the text in it, or answers a question about it."""
    return await forward(request, gateway, caller, Chat)
