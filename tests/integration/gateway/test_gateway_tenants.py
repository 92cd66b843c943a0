"""Tenants at the gateway's door: API keys, access to services, suspension; from a file that changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from support.gateway import (
    Engine,
    bearer,
    command,
    environment,
    eventually,
    gateway_here,
    running_engine,
    token,
    whisper,
)

SPEECH = "/api/speech-to-text"


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with running_engine() as made:
        yield made


def write(folder: Path, engine: Engine, *tenants: dict[str, Any], services: list[dict[str, Any]] | None = None) -> None:
    """Writes the services file; without `services` there is whisper."""
    document = {"services": services if services is not None else [whisper(engine.url)], "tenants": list(tenants)}
    new = folder / "new.yaml"
    new.write_text(yaml.safe_dump(document))
    new.replace(folder / "services.yaml")


def tenant(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": spec}


async def ask(
    client: aiohttp.ClientSession, path: str = SPEECH, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """Status and body of an answer."""
    async with client.post(path, json={}, headers=headers or bearer()) as answer:
        body: dict[str, Any] = await answer.json()
        assert body.pop("request_id", None) == answer.headers["X-Request-Id"] or answer.status == 429
        return answer.status, body


async def until(client: aiohttp.ClientSession, status: int, **more: Any) -> None:
    async def look() -> bool:
        return (await ask(client, **more))[0] == status

    await eventually(look)


def make_key(*arguments: str) -> tuple[str, dict[str, Any]]:
    """A key that the command makes, and what it prints for the tenant's spec."""
    done = command("key", *arguments)
    assert done.returncode == 0, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("The key, which is not shown again: ais_")
    key = line.rpartition(" ")[2]
    assert key not in done.stdout
    return key, yaml.safe_load(done.stdout)["spec"]


async def test_the_life_of_a_key(tmp_path: Path, engine: Engine) -> None:
    key, spec = make_key("--tenant", "Acme GmbH", "--name", "ci", "--user", "pipeline", "--expires", "90d")
    assert spec["tenant"] == "Acme GmbH"
    assert set(spec["apiKeys"][0]) == {"name", "sha256", "user", "expires"}
    headers = {"Authorization": f"Bearer {key}"}
    write(tmp_path, engine, tenant("acme", **spec))
    async with gateway_here(environment(tmp_path)) as client:
        assert (await ask(client, headers=headers))[0] == 200
        async with client.get("/api/usage", headers=headers) as answer:
            assert (await answer.json())["tenantId"] == "Acme GmbH"
        assert (await ask(client, headers={"x-api-key": key, "Authorization": ""}))[0] == 401
        write(tmp_path, engine, tenant("acme", tenant="Acme GmbH"))
        await until(client, 401, headers=headers)
        assert (await ask(client, headers=headers))[1] == {
            "error": "The API key is not known: it was withdrawn, or is not whole.",
            "code": "unauthenticated",
        }
    assert all("authorization" not in seen.headers for seen in engine.seen)


async def test_a_suspended_tenant_is_refused_at_once_and_let_in_again(tmp_path: Path, engine: Engine) -> None:
    write(tmp_path, engine)
    async with gateway_here(environment(tmp_path)) as client:
        assert (await ask(client))[0] == 200
        write(tmp_path, engine, tenant("acme", suspend=True))
        await until(client, 403)
        said = {"error": "The tenant is suspended: ask whoever runs the gateway.", "code": "tenant_suspended"}
        assert await ask(client) == (403, said)
        async with client.get("/api/usage", headers=bearer()) as answer:
            assert answer.status == 403
        assert (await ask(client, headers=bearer("other")))[0] == 200
        asked = len(engine.seen)
        await ask(client)
        assert len(engine.seen) == asked
        write(tmp_path, engine)
        await until(client, 200)


async def test_tenants_that_must_be_known(tmp_path: Path, engine: Engine) -> None:
    write(tmp_path, engine, tenant("acme"))
    async with gateway_here(environment(tmp_path, GATEWAY_REQUIRE_TENANT="true")) as client:
        assert (await ask(client))[0] == 200
        said = {
            "error": "The tenant is not known here: ask whoever runs the gateway to add it.",
            "code": "unknown_tenant",
        }
        assert await ask(client, headers=bearer("stranger")) == (403, said)
        write(tmp_path, engine, tenant("acme"), tenant("stranger"))
        await until(client, 200, headers=bearer("stranger"))


async def test_what_a_tenant_may_not_use_is_not_there_for_it(tmp_path: Path, engine: Engine) -> None:
    services: list[dict[str, Any]] = [
        {**whisper(engine.url, default=True, tenants=["globex"], names=["fast"]), "name": "theirs"},
        {**whisper(engine.url), "name": "for-all", "model": "m/all"},
        {**whisper(engine.url), "name": "other", "model": "m/other"},
        {"name": "images", "tasks": ["text-to-image"], "url": engine.url, "tenants": ["globex"]},
    ]
    write(tmp_path, engine, tenant("acme", services=["other"]), services=services)
    async with gateway_here(environment(tmp_path)) as client:
        globex, initech = bearer("globex"), bearer("initech")
        assert (await ask(client, f"{SPEECH}?service=theirs", globex))[0] == 200
        assert (await ask(client, "/api/text-to-image", globex))[0] == 200

        nothing = await ask(client, "/api/text-to-image", initech)
        assert nothing[0] == 404
        assert nothing == await ask(client, "/api/text-to-image?service=images", initech)
        unknown = await ask(client, f"{SPEECH}?service=no-such", initech)
        assert unknown[1]["error"] == "No service of that name does speech-to-text. There are: for-all, other."
        assert unknown == await ask(client, f"{SPEECH}?service=theirs", initech)
        assert unknown == await ask(client, f"{SPEECH}?service=fast", initech)
        status, body = await ask(client, f"{SPEECH}?service=for-all")
        assert (status, body["error"]) == (404, "No service of that name does speech-to-text. There are: other.")

        async with client.post(SPEECH, json={}, headers=initech) as answer:
            assert answer.status == 200, "the default of those that it may use"
        async with client.post(SPEECH, json={}, headers=bearer()) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--tenant", "acme"], {"name": "key"}),
        (["--tenant", "acme", "--name", "root", "--admin"], {"name": "root", "admin": True}),
    ],
)
def test_what_the_command_prints_is_what_an_aitenant_states(arguments: list[str], expected: dict[str, Any]) -> None:
    key, spec = make_key(*arguments)
    other, _ = make_key(*arguments)
    assert key != other
    [entry] = spec["apiKeys"]
    assert len(entry.pop("sha256")) == 64
    assert entry == expected
    assert spec["tenant"] == "acme"


async def test_tokens_made_for_a_try_pass_with_every_setting(tmp_path: Path, engine: Engine) -> None:
    write(tmp_path, engine)
    variables = environment(
        tmp_path,
        JWT_SECRET="",
        GATEWAY_JWT_SECRETS='{"2026": "Qw9eR2tY5uI8oP1aS4dF7gH0jK3lZ6xC"}',
        GATEWAY_JWT_ISSUER="app",
        GATEWAY_JWT_AUDIENCE="gateway,console",
        GATEWAY_TENANT_CLAIM="org.id",
        GATEWAY_ROLE_CLAIM="realm_access.roles",
        GATEWAY_ADMIN_ROLE="root",
    )
    done = command("token", "--tenant", "acme", "--admin", **variables)
    assert done.returncode == 0, done.stderr
    async with gateway_here(variables) as client:
        assert (await ask(client, headers={"Authorization": f"Bearer {done.stdout.strip()}"}))[0] == 200
        assert (await ask(client))[0] == 401


@pytest.mark.parametrize(
    ("variables", "arguments", "says"),
    [
        ({"GATEWAY_JWKS_URL": "https://issuer.example/keys"}, [], "your issuer has to make it"),
        ({"JWT_SECRET": "Qw9eR2tY5uI8oP1aS4dF7gH0jK3lZ6xC"}, ["--admin"], "GATEWAY_ADMIN_ROLE is not set"),
        ({}, [], "JWT_SECRET is not set, and neither is"),
    ],
)
def test_a_token_that_cannot_be_made_is_told(variables: dict[str, str], arguments: list[str], says: str) -> None:
    done = command("token", "--tenant", "acme", *arguments, **variables)
    assert done.returncode == 1
    assert says in done.stderr
    assert done.stdout == ""


async def test_administrators_see_the_limits_of_every_tenant(tmp_path: Path, engine: Engine) -> None:
    counted = {"measure": "requests", "maximum": 7, "window": "1h"}
    write(tmp_path, engine, tenant("acme", limits=[counted]), tenant("globex", limits=[{**counted, "maximum": 9}]))
    async with gateway_here(environment(tmp_path, GATEWAY_ADMIN_ROLE="admin")) as client:
        member, admin = bearer("acme"), {"Authorization": f"Bearer {token('acme', role='admin')}"}
        assert (await ask(client, headers=bearer("globex")))[0] == 200

        async def limits(query: str, headers: dict[str, str]) -> tuple[Any, Any]:
            async with client.get(f"/api/limits{query}", headers=headers) as answer:
                body = await answer.json()
                if answer.status != 200:
                    return answer.status, body["error"]
                [limit] = body["limits"]
                return body["tenantId"], (limit["limit"], limit["remaining"])

        for headers in (member, admin):
            assert await limits("", headers) == await limits("?tenant=acme", headers) == ("acme", (7, 7))
        assert await limits("?tenant=globex", admin) == ("globex", (9, 8))
        said = "The token is for its own tenant only: leave 'tenant' out."
        assert await limits("?tenant=globex", member) == await limits("?tenant=*", member) == (403, said)
        assert await limits("?tenant=*", admin) == (400, "tenant: each tenant has limits of its own, so name one.")
        unknown = "There is no parameter 'tenent' here. There are: tenant."
        assert await limits("?tenent=globex", admin) == await limits("?tenent=acme", member) == (400, unknown)
        assert await limits("?tenant=acme&tenant=globex", admin) == (400, "tenant: it is there more than once.")
        assert (await limits("?tenant=", admin))[0] == 400
