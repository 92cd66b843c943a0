"""What the OpenAPI description says that FastAPI does not know, or thinks wrongly."""

from __future__ import annotations

from typing import Any, Final

from aiservice_gateway.idempotent import repeatable
from aiservice_gateway.openai_errors import is_openai
from aiservice_gateway.routers import documents
from aiservice_gateway.routers.examples import restored
from aiservice_gateway.routers.openai import documents as openai_documents

_FASTAPIS: Final = "422"
_FASTAPIS_SCHEMAS: Final = ("HTTPValidationError", "ValidationError")
_KEY: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "pattern": r"^[!#-~]{1,255}$"},
    "description": "A word of your own, such as a UUID: a request that is repeated with it gets the first one's "
    "answer, and is charged once.",
    "example": "8e03978e-40d5-43e8-bc93-6894a57f9324",
}


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """FastAPI's OpenAPI description, corrected.

    Its 422 is left out: what does not fit is answered 400. Routes that take an idempotency key say so.
    """
    for path, item in document["paths"].items():
        for method, operation in item.items():
            operation["responses"].pop(_FASTAPIS, None)
            if repeatable(path, [method]):
                kind = openai_documents if is_openai(path) else documents
                operation["parameters"] = [*operation.get("parameters", []), _KEY]
                operation["responses"] |= {str(status): answer for status, answer in kind.REPEATED.items()}
    for name in _FASTAPIS_SCHEMAS:
        document["components"]["schemas"].pop(name, None)
    return restored(document)
