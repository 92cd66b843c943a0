"""`/api/usage`: pages, filters, administrators, CSV, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aiservice_api.tasks import Task
from aiservice_gateway.models import Identity
from aiservice_gateway.selection import Dimension
from aiservice_gateway.stores.base import UsageStore
from aiservice_gateway.stores.postgres import PostgresUsage
from support.gateway import write_services
from support.usage import (
    ADMIN,
    BETWEEN,
    END,
    START,
    TENANTS,
    Api,
    api_of,
    expected,
    made,
    rolled,
)


@pytest.fixture
async def api(store: UsageStore, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    write_services(tmp_path / "services.yaml")
    postgresql = isinstance(store, PostgresUsage)
    variables = {"DATABASE_URL": request.getfixturevalue("migrated_database")} if postgresql else {}
    async with api_of(tmp_path, store, **variables) as found:
        yield found


async def test_groups_come_in_pages(api: Api) -> None:
    some = made(400)
    await api.store.insert(some)
    dimensions = [Dimension.SERVICE, Dimension.DAY]
    wanted = expected((one for one in some if one.tenant == "acme"), dimensions)
    question = f"/api/usage?{BETWEEN}&group_by=service,day&limit=20"
    found: list[Any] = []
    cursor = ""
    while True:
        body = await api.get(question + cursor)
        assert body["tenantId"] == "acme"
        assert body["period"] == {"from": "2026-09-01T00:00:00.000Z", "to": "2026-11-01T00:00:00.000Z"}
        found += body["groups"]
        if body["next"] is None:
            break
        assert len(body["groups"]) == 20
        cursor = f"&cursor={body['next']}"
    assert [
        ((one["service"], one["day"]), one["count"], one["total_tokens"], one["units"], one["unit"], one["cost"])
        for one in found
    ] == wanted
    assert list(found[0]) == ["service", "day", "count", "total_tokens", "units", "unit", "cost"]


async def test_units_of_several_kinds_are_not_added_up(api: Api) -> None:
    some = [replace(one, tenant="acme", user="ann") for one in made(60)]
    await api.store.insert(some)
    [group] = (await api.get(f"/api/usage?{BETWEEN}&group_by=user"))["groups"]
    assert (group["count"], group["units"], group["unit"]) == (60, None, None)
    assert group["cost"] == float(sum(one.cost for one in some))


async def test_records_come_in_pages(api: Api) -> None:
    some = made(250)
    await api.store.insert(some)
    wanted = sorted((one for one in some if one.tenant == "acme"), key=lambda one: one.created_at, reverse=True)
    first = await api.get("/api/usage/records?from=2026-09-01&to=2026-11-01T00:00:00Z&limit=25")
    assert [one["id"] for one in first["records"]] == [one.id for one in wanted[:25]]
    second = await api.get(f"/api/usage/records?limit=1000&cursor={first['next']}")  # the period is in the cursor
    assert [one["id"] for one in second["records"]] == [one.id for one in wanted[25:]]
    assert second["next"] is None
    newest = wanted[0]
    assert first["records"][0] == {
        "id": newest.id,
        "tenantId": "acme",
        "userId": newest.user,
        "service": newest.service,
        "model": newest.model,
        "tokens": newest.tokens,
        "units": float(newest.units),
        "unit": newest.unit,
        "cost": float(newest.cost),
        "durationMs": newest.duration_ms,
        "status": newest.status,
        "createdAt": newest.created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }


async def test_the_report_takes_filters(api: Api) -> None:
    now = datetime.now(UTC)
    some = [replace(one, tenant="acme", created_at=now) for one in made(80)]
    await api.store.insert(some)
    body = await api.get("/api/usage?user=ann&service=text-to-image")
    wanted = [one for one in some if one.user == "ann" and one.service is Task.TEXT_TO_IMAGE]
    assert list(body) == ["tenantId", "period", "services", "today", "limits"]
    assert list(body["services"]) == list(body["today"]) == list(body["limits"]) == ["text-to-image"]
    assert body["services"]["text-to-image"]["count"] == len(wanted) > 0
    assert body["today"]["text-to-image"]["total_tokens"] == sum(one.tokens for one in wanted)
    body = await api.get("/api/usage?model=nobody")
    assert (body["services"], body["today"], len(body["limits"])) == ({}, {}, 5)


async def test_administrators_see_every_tenant(api: Api) -> None:
    some = made(200)
    await api.store.insert(some)
    api.caller = ADMIN
    assert (await api.get(f"/api/usage?{BETWEEN}"))["services"] == {}  # the administrator's own tenant
    by_tenant = await api.get(f"/api/usage?{BETWEEN}&group_by=tenant")
    assert by_tenant["tenantId"] is None
    counts = {group["tenant"]: group["count"] for group in by_tenant["groups"]}
    assert counts == {tenant: sum(one.tenant == tenant for one in some) for tenant in TENANTS}
    other = await api.get(f"/api/usage?{BETWEEN}&tenant=Bolt")
    assert other["tenantId"] == "Bolt"
    assert sum(one["count"] for one in other["services"].values()) == counts["Bolt"]
    assert len(other["limits"]) == 5
    everything = await api.get(f"/api/usage?{BETWEEN}&tenant=*")
    assert (everything["tenantId"], everything["limits"]) == (None, {})
    assert sum(one["count"] for one in everything["services"].values()) == 200
    assert len((await api.get(f"/api/usage/records?{BETWEEN}&tenant=*&limit=1000"))["records"]) == 200


@pytest.mark.parametrize("path", ["/api/usage", "/api/usage/records"])
@pytest.mark.parametrize("tenant", ["Bolt", "*", "nobody"])
async def test_others_see_their_own_only(api: Api, path: str, tenant: str) -> None:
    await api.store.insert(made(50))
    body = await api.get(f"{path}?tenant={tenant}", 403)
    assert (body["code"], body["error"]) == (
        "forbidden",
        "The token is for its own tenant only: leave 'tenant' out.",
    )
    assert (await api.get(f"{path}?tenant=acme"))["tenantId"] == "acme"
    groups = (await api.get(f"/api/usage?{BETWEEN}&group_by=tenant"))["groups"]
    assert [group["tenant"] for group in groups] == ["acme"]


async def test_a_cursor_gives_no_other_tenants_usage(api: Api) -> None:
    await api.store.insert(made(200))
    api.caller = ADMIN
    everything = await api.get(f"/api/usage/records?{BETWEEN}&tenant=*&limit=5")
    api.caller = Identity("acme", None)
    body = await api.get(f"/api/usage/records?{BETWEEN}&cursor={everything['next']}", 400)
    assert "belongs to another question" in body["error"]


BAD_QUERIES = {
    "grup_by=service": "There is no parameter 'grup_by' here. There are: cursor, format, from, group_by",
    "from=2026-01-01&from=2026-02-01": "from: it is there more than once.",
    "from=yesterday": "from: ",
    "from=2026-02-01&to=2026-01-01": "ends before it starts",
    "from=0001-01-01T00:00:00%2B14:00": "outside the years 1 to 9999",
    "service=chess": "service: ",
    "user=": "user: ",
    "user=a%00b": "user: ",
    "tenant=%E2%80%AE": "tenant: ",
    "format=xml": "format: ",
    "group_by=week": "group_by.0: ",
    "group_by=": "group_by.0: ",
    "group_by=day,day": "names something twice",
    "group_by=day&group_by=day": "names something twice",
    "group_by=day&limit=0": "limit: ",
    "group_by=day&limit=1001": "limit: ",
    "limit=10": "state 'group_by'",
    "format=csv&limit=10": "CSV is sent whole",
    "group_by=day&cursor=x": "cursor: it is none",
    "group_by=day&cursor=bnVsbA": "cursor: it is none",
}


async def test_bad_parameters_are_told(api: Api) -> None:
    for query, says in BAD_QUERIES.items():
        body = await api.get(f"/api/usage?{query}", 400)
        assert body["code"] == "invalid_request"
        assert says in body["error"], query
    body = await api.get("/api/usage/records?group_by=day", 400)
    assert "There is no parameter 'group_by' here." in body["error"]


async def test_a_cursor_is_of_one_question(api: Api) -> None:
    await api.store.insert(made(200))
    page = await api.get(f"/api/usage?{BETWEEN}&group_by=day&limit=3")
    for other, says in {
        "group_by=hour": "another question",
        "group_by=day&user=ann": "another question",
        "group_by=day&from=2026-09-02": "another period",
        "group_by=day&to=2026-10-02": "another period",
    }.items():
        assert says in (await api.get(f"/api/usage?{other}&cursor={page['next']}", 400))["error"]
    assert "another question" in (await api.get(f"/api/usage/records?cursor={page['next']}", 400))["error"]


async def test_csv_holds_what_json_does(api: Api) -> None:
    some = made(300)
    await api.store.insert(some)
    api.caller = ADMIN
    question = f"/api/usage?{BETWEEN}&group_by=tenant&group_by=user,month"
    groups = (await api.get(f"{question}&limit=1000"))["groups"]
    header, *rows = await api.rows(question, Accept="text/csv")
    assert header == ["tenant", "user", "month", "count", "total_tokens", "units", "unit", "cost"]
    assert len(rows) == len(groups)
    for row, group in zip(rows, groups, strict=True):
        tenant = group["tenant"]
        assert row[0] == (f"'{tenant}" if tenant.startswith("=") else tenant)
        assert row[1] == (group["user"] or "")
        assert [int(row[3]), int(row[4]), float(row[7])] == [group["count"], group["total_tokens"], group["cost"]]
        assert "e" not in row[7]
    records = (await api.get(f"/api/usage/records?{BETWEEN}&tenant=*&limit=1000"))["records"]
    header, *rows = await api.rows(f"/api/usage/records?{BETWEEN}&tenant=*&format=csv")
    assert header == list(records[0])
    assert [row[0] for row in rows] == [one["id"] for one in records]
    assert [row[4] for row in rows] == [one["model"] or "" for one in records]


async def test_csv_of_the_report_is_by_service(api: Api) -> None:
    await api.store.insert(made(100))
    header, *rows = await api.rows(f"/api/usage?{BETWEEN}&format=csv")
    assert header == ["service", "count", "total_tokens", "units", "unit", "cost"]
    services = (await api.get(f"/api/usage?{BETWEEN}", Accept="application/json, text/csv"))["services"]
    assert [row[0] for row in rows] == list(services)


async def test_csv_is_read_bit_by_bit(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiservice_gateway.services.usage._STREAMED_ITEMS", 9)
    await api.store.insert(made(200))
    api.caller = ADMIN
    assert len(await api.rows(f"/api/usage/records?{BETWEEN}&tenant=*&format=csv")) == 201
    days = (END - START).days
    assert len(await api.rows(f"/api/usage?{BETWEEN}&group_by=tenant,day&format=csv")) > 2 * days


async def test_csv_that_breaks_off_is_not_taken_for_whole(
    tmp_path: Path, migrated_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiservice_gateway.services.usage._STREAMED_ITEMS", 9)
    write_services(tmp_path / "services.yaml")
    store = PostgresUsage(migrated_database)
    await store.insert(made(200))
    answered = 0
    read = PostgresUsage.records

    async def fail_later(self: PostgresUsage, *arguments: Any) -> Any:
        nonlocal answered
        answered += 1
        if answered > 3:
            raise ConnectionResetError
        return await read(self, *arguments)

    monkeypatch.setattr(PostgresUsage, "records", fail_later)
    async with (
        api_of(tmp_path, store, DATABASE_URL=migrated_database) as api,
        api.client.get(f"/api/usage/records?{BETWEEN}&format=csv", headers=api.headers()) as answer,
    ):
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientError):
            await answer.read()
    await store.close()


async def test_hours_of_days_that_were_rolled_up_are_refused_with_a_way_out(api: Api) -> None:
    await api.store.insert(made(100))
    await rolled(api.store, START + timedelta(days=30))
    api.caller = ADMIN
    for query in (f"{BETWEEN}&group_by=tenant,hour", "tenant=*&from=2026-09-02T10:00&to=2026-10-01"):
        body = await api.get(f"/api/usage?{query}", 400)
        assert "only sums of whole days are left" in body["error"]
    assert (await api.get(f"/api/usage?{BETWEEN}&tenant=*&group_by=month"))["groups"][0]["month"] == "2026-09"
