"""`/v1/audio/*`."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from aiservice_gateway.routers.dependencies import Caller, Running, bearer
from aiservice_gateway.routers.openai.documents import SOUND, TRANSCRIPT, TRANSLATION, request_body
from aiservice_gateway.routers.openai.forwarding import forward
from aiservice_gateway.services.openai.speech import Speech
from aiservice_gateway.services.openai.transcriptions import Transcription, Translation

router = APIRouter(prefix="/v1", dependencies=[Depends(bearer)])

_SPEECH = {"model": "xtts", "input": "Hello, this is a test", "voice": "default", "response_format": "wav"}
_WHISPER = {"model": "whisper"}


@router.post(
    "/audio/speech",
    summary="Speech from text",
    response_class=Response,
    responses=SOUND,
    openapi_extra=request_body(Speech, _SPEECH),
)
async def speak(request: Request, gateway: Running, caller: Caller) -> Response:
    """Speaks a text. The sound is sent while it is computed."""
    return await forward(request, gateway, caller, Speech)


@router.post(
    "/audio/transcriptions",
    summary="Text from speech",
    response_class=Response,
    responses=TRANSCRIPT,
    openapi_extra=request_body(Transcription, _WHISPER),
)
async def transcribe(request: Request, gateway: Running, caller: Caller) -> Response:
    """Writes down what a recording says."""
    return await forward(request, gateway, caller, Transcription)


@router.post(
    "/audio/translations",
    summary="English text from speech",
    response_class=Response,
    responses=TRANSLATION,
    openapi_extra=request_body(Translation, _WHISPER),
)
async def translate(request: Request, gateway: Running, caller: Caller) -> Response:
    """Writes down in English what a recording says, whatever its language."""
    return await forward(request, gateway, caller, Translation)
