"""What may be asked of usage, as parameters of a URL."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from fastapi import Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from aiservice_api.tasks import Task
from aiservice_gateway.errors import BadRequestError
from aiservice_gateway.models import Identity
from aiservice_gateway.negotiation import prefers
from aiservice_gateway.selection import Dimension, Filter
from aiservice_gateway.services.usage import ALL_TENANTS, MOST_ITEMS, Question, tenant_asked

PAGE_ITEMS = 100
"""In one page, where no limit is stated."""


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("has characters that cannot be printed")
    return value


Name = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_printable)]
"""Of a model, a user or a tenant."""


class Format(StrEnum):
    """How the answer is written."""

    JSON = "json"
    CSV = "csv"


class RecordsParameters(BaseModel):
    """Which records, and how."""

    from_: Annotated[
        datetime | None, Field(alias="from", description="ISO 8601; the first of the month when left out.")
    ] = None
    to: Annotated[datetime | None, Field(description="ISO 8601; now when left out.")] = None
    service: Annotated[Task | None, Field(description="Only this service.")] = None
    model: Annotated[Name | None, Field(description="Only this model.")] = None
    user: Annotated[Name | None, Field(description="Only this user.")] = None
    tenant: Annotated[
        Name | None,
        Field(description="For administrators: another tenant, or * for all. The token's own when left out."),
    ] = None
    format: Annotated[Format | None, Field(description="As the Accept header says when left out.")] = None
    limit: Annotated[
        int | None, Field(ge=1, le=MOST_ITEMS, description=f"Most items of a page; {PAGE_ITEMS} when left out.")
    ] = None
    cursor: Annotated[
        str | None, Field(description="`next` of the page before; the other parameters stay as they were.")
    ] = None

    def question(self, caller: Identity) -> Question:
        """What is asked.

        Raises:
            ForbiddenError: it is about another tenant, and the caller is no administrator.
        """
        which = Filter(tenant_asked(caller, self.tenant), self.service, self.model, self.user)
        return Question(which, self.from_, self.to)

    def as_csv(self, request: Request) -> bool:
        """Whether the answer is to be CSV.

        Raises:
            BadRequestError: only a page of it is asked for.
        """
        wanted = self.format is Format.CSV
        if self.format is None:
            wanted = prefers(request.headers.getlist("accept"), "text/csv", over="application/json")
        if wanted:
            self.without_pages("CSV is sent whole")
        return wanted

    def without_pages(self, reason: str) -> None:
        """Refuses what only pages have.

        Raises:
            BadRequestError: there is some of it.
        """
        if self.limit is not None or self.cursor is not None:
            raise BadRequestError(f"{reason}: leave 'limit' and 'cursor' out.")


def _by_commas(values: object) -> object:
    return [part for value in values for part in str(value).split(",")] if isinstance(values, list) else values


def _once_each(values: list[Dimension]) -> list[Dimension]:
    if len(set(values)) < len(values):
        raise ValueError("names something twice")
    return values


class UsageParameters(RecordsParameters):
    """Which records, summed up by what, and how."""

    group_by: Annotated[
        list[Dimension],
        BeforeValidator(_by_commas),
        AfterValidator(_once_each),
        Field(description="One or several, repeated or with commas. The report with limits when left out."),
    ] = []

    def question(self, caller: Identity) -> Question:
        """What is asked; an administrator who groups by tenant means all of them."""
        if self.tenant is None and caller.admin and Dimension.TENANT in self.group_by:
            return self.model_copy(update={"tenant": ALL_TENANTS}).question(caller)
        return super().question(caller)


def check_names(request: Request, parameters: type[BaseModel]) -> None:
    """Refuses parameters that do not exist, or are there twice.

    Raises:
        BadRequestError: there is one; the message names it.
    """
    known = {field.alias or name: field for name, field in parameters.model_fields.items()}
    for name in request.query_params:
        if name not in known:
            raise BadRequestError(f"There is no parameter {name[:64]!r} here. There are: {', '.join(sorted(known))}.")
        if len(request.query_params.getlist(name)) > 1 and name != "group_by":
            raise BadRequestError(f"{name}: it is there more than once.")
