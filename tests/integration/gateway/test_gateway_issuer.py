"""Tokens of an issuer whose keys come over HTTP: rotation, attacks, and an issuer that is away, slow or hostile."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from aiservice_gateway.errors import UnauthenticatedError, UnavailableError
from aiservice_gateway.factory import authenticator
from aiservice_gateway.services.auth import Authenticator
from aiservice_gateway.services.jwks import KeySource
from aiservice_gateway.services.tenants import Tenants
from aiservice_gateway.settings import TokenSettings
from support.databases import free_port
from support.gateway import SECRET, environment, eventually, gateway_here, token, write_services
from support.issuer import Issuer, SigningKey, running_issuer

RSA = SigningKey("RS256", "rsa")
PSS = SigningKey("PS256", "pss")
EC = SigningKey("ES256", "ec")
ED = SigningKey("EdDSA", "ed")
NEW = SigningKey("ES256", "new")
STRANGER = SigningKey("ES256", "ec")
"""Of somebody else, under a name that the issuer has."""

MODULE = "aiservice_gateway.services.jwks"


@asynccontextmanager
async def following(url: str, **variables: str) -> AsyncIterator[tuple[Authenticator, KeySource]]:
    """What checks tokens with the keys of an address; JWT_SECRET is not set."""
    keys = KeySource(url)
    tenants = Tenants(100)
    tenants.replace([])
    auth = authenticator(TokenSettings.load({"GATEWAY_JWKS_URL": url, **variables}), keys, tenants)
    running = asyncio.create_task(keys.run())
    yield auth, keys
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def tenant_of(auth: Authenticator, token: str) -> str:
    return (await auth.identify([f"Bearer {token}"])).tenant


async def refusal(auth: Authenticator, token: str) -> str:
    with pytest.raises(UnauthenticatedError) as caught:
        await tenant_of(auth, token)
    assert token not in caught.value.message
    return caught.value.message


async def test_every_algorithm_with_its_own_kind_of_key() -> None:
    async with running_issuer(RSA, PSS, EC, ED) as issuer, following(issuer.url) as (auth, keys):
        for key in (RSA, PSS, EC, ED):
            assert await tenant_of(auth, key.token(key.kid)) == key.kid
        assert keys.synced
        assert issuer.asked == 1


def secret_of(key: SigningKey) -> list[bytes]:
    """Public keys in the forms that careless servers take for secrets."""
    public = key.key.public_key()
    return [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).strip(),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(key.public).encode(),
        key.public["n"].encode(),
        b"",
    ]


def signed_with(secret: bytes, header: dict[str, Any]) -> str:
    """A token by HS256 that no library would make: it refuses public keys as secrets."""
    claims = {"tenantId": "acme", "exp": int(time.time()) + 600}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    signed = b".".join(parts)
    signature = base64.urlsafe_b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).rstrip(b"=")
    return (signed + b"." + signature).decode()


@pytest.mark.parametrize("secrets", [{}, {"JWT_SECRET": SECRET}], ids=["keys alone", "with a secret"])
async def test_a_public_key_is_never_a_secret(secrets: dict[str, str]) -> None:
    async with running_issuer(RSA) as issuer, following(issuer.url, **secrets) as (auth, keys):
        await eventually(lambda: keys.synced)
        for secret in secret_of(RSA):
            said = await refusal(auth, signed_with(secret, {"alg": "HS256", "kid": "rsa"}))
            assert ("signature is wrong" if secrets else "algorithm is not accepted") in said
            assert "signature is wrong" in await refusal(auth, signed_with(secret, {"alg": "RS256", "kid": "rsa"}))
        if secrets:
            assert await tenant_of(auth, token("beta")) == "beta"


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ({"alg": "none"}, "algorithm is not accepted"),
        ({"alg": "NonE"}, "algorithm is not accepted"),
        ({"alg": "HS256"}, "algorithm is not accepted"),
        ({"alg": "RS512"}, "algorithm is not accepted"),
        ({"alg": "ES384"}, "algorithm is not accepted"),
        ({"alg": "PS256"}, "does not list"),
        ({"alg": "RS256"}, "does not list"),
        ({"alg": "EdDSA"}, "does not list"),
        ({"kid": "../../dev/null"}, "does not list"),
        ({"kid": "' OR 1=1"}, "does not list"),
        ({"kid": "k" * 4000}, "does not list"),
        ({"kid": ["ec"]}, "cannot be read"),
        ({"crit": ["exp"]}, "extension|cannot be read"),
        ({"b64": False}, "extension|cannot be read"),
    ],
    ids=str,
)
async def test_a_hostile_header(header: dict[str, object], says: str) -> None:
    """Signed by the issuer's own key, then changed: what is refused is refused before the signature is looked at."""
    async with running_issuer(EC) as issuer, following(issuer.url) as (auth, keys):
        await eventually(lambda: keys.synced)
        _, claims, signature = EC.token().split(".")
        raw = json.dumps({"alg": "ES256", "kid": "ec", **header}).encode()
        forged = f"{base64.urlsafe_b64encode(raw).rstrip(b'=').decode()}.{claims}.{signature}"
        said = await refusal(auth, forged)
        assert any(part in said for part in says.split("|"))


async def test_keys_that_a_token_brings_or_points_to_are_ignored() -> None:
    async with running_issuer(STRANGER) as theirs, running_issuer(EC) as issuer, following(issuer.url) as (auth, _):
        for brought in ({"jwk": STRANGER.public}, {"jku": theirs.url}, {"x5u": theirs.url}, {"x5c": ["MIIB"]}):
            said = await refusal(auth, STRANGER.token(header=brought))
            assert "signature is wrong" in said
            assert await tenant_of(auth, EC.token(header=brought)) == "acme"
        assert theirs.asked == 0


async def test_audience_issuer_and_times_are_checked_of_these_tokens_too() -> None:
    settings = {"GATEWAY_JWT_AUDIENCE": "gateway", "GATEWAY_JWT_ISSUER": "https://issuer.example"}
    async with running_issuer(EC) as issuer, following(issuer.url, **settings) as (auth, _):
        good: dict[str, Any] = {"aud": "gateway", "iss": "https://issuer.example"}
        assert await tenant_of(auth, EC.token(**good)) == "acme"
        assert "audience" in await refusal(auth, EC.token(**{**good, "aud": "other"}))
        assert "'iss' claim" in await refusal(auth, EC.token(aud="gateway"))
        assert "expired" in await refusal(auth, EC.token(**good, exp=1))
        assert "not valid yet" in await refusal(auth, EC.token(**good, nbf=time.time() + 600))


async def test_a_token_that_names_no_key_needs_a_single_one() -> None:
    anonymous = EC.token(header={"kid": None})
    assert "kid" not in jwt.get_unverified_header(anonymous)
    async with running_issuer(EC, RSA) as issuer, following(issuer.url) as (auth, keys):
        assert await tenant_of(auth, anonymous) == "acme"
        issuer.keys = [EC, NEW]
        await refetched(keys, issuer)
        assert "does not list" in await refusal(auth, anonymous)


async def refetched(keys: KeySource, issuer: Issuer) -> None:
    """Waits until the keys were fetched once more."""
    asked = issuer.asked
    keys._wanted.set()
    await eventually(lambda: issuer.asked > asked and not keys._fetching)


async def test_a_new_key_is_found_when_it_is_first_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{MODULE}._UNKNOWN_KEY_SECONDS", 0.0)
    async with running_issuer(EC) as issuer, following(issuer.url) as (auth, _):
        assert await tenant_of(auth, EC.token()) == "acme"
        issuer.keys = [EC, NEW]
        issuer.delay_seconds = 0.2
        together = await asyncio.gather(*(tenant_of(auth, NEW.token(f"t{number}")) for number in range(20)))
        assert together == [f"t{number}" for number in range(20)]
        assert issuer.asked == 2, "all of them waited for one fetch"


async def test_unknown_keys_make_the_issuer_be_asked_only_now_and_then() -> None:
    async with running_issuer(EC) as issuer, following(issuer.url) as (auth, keys):
        await eventually(lambda: keys.synced)
        for number in range(50):
            assert "does not list" in await refusal(auth, EC.token(header={"kid": f"k{number}"}))
        assert issuer.asked == 1
        keys._last_attempt -= 11  # as if the time had passed
        for number in range(50):
            await refusal(auth, EC.token(header={"kid": f"k{number}"}))
        assert issuer.asked == 2


async def test_a_withdrawn_key_takes_its_remembered_tokens_along() -> None:
    async with running_issuer(EC, NEW) as issuer, following(issuer.url) as (auth, keys):
        old, kept = EC.token(), NEW.token()
        assert [await tenant_of(auth, each) for each in (old, kept, old)] == ["acme"] * 3
        assert len(auth._verified) == 2
        await refetched(keys, issuer)
        assert len(auth._verified) == 2, "the same keys again"
        issuer.keys = [NEW]
        await refetched(keys, issuer)
        assert "does not list" in await refusal(auth, old)
        assert await tenant_of(auth, kept) == "acme"
        issuer.keys = [STRANGER, NEW]
        await refetched(keys, issuer)
        assert "signature is wrong" in await refusal(auth, old)
        issuer.keys = []
        await refetched(keys, issuer)
        assert "does not list" in await refusal(auth, kept)


async def test_keys_are_refreshed_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{MODULE}._REFRESH_SECONDS", 0.05)
    async with running_issuer(EC) as issuer, following(issuer.url) as (auth, _):
        assert await tenant_of(auth, EC.token()) == "acme"
        issuer.keys = [NEW]
        await eventually(lambda: not auth._verified)
        assert await tenant_of(auth, NEW.token()) == "acme"


async def test_the_last_keys_serve_on_while_the_issuer_is_away(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    async with running_issuer(EC, port=port) as issuer:
        entered = following(issuer.url)
        auth, keys = await entered.__aenter__()
        assert await tenant_of(auth, EC.token()) == "acme"
    keys._wanted.set()
    await eventually(lambda: not keys.connected)
    assert keys.synced
    assert "the last known ones serve on" in caplog.text
    assert await tenant_of(auth, EC.token("beta")) == "beta"
    async with running_issuer(EC, NEW, port=port):
        await eventually(lambda: keys.connected)  # it tries again by itself
        assert await tenant_of(auth, NEW.token()) == "acme"
        await entered.__aexit__(None, None, None)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "an error": ({"status": 500}, "status 500"),
    "not found": ({"status": 404}, "status 404"),
    "a redirect": (
        {"status": 302, "headers": {"location": "/keys"}},
        "it redirects (status 302): set GATEWAY_JWKS_URL",
    ),
    "a page": ({"body": b"<html>"}, "unexpected character"),
    "no list": ({"body": b"[]"}, "it is no JWK set"),
    "too large": ({"body": b" " * 600_000}, "larger than 524288 bytes"),
    "without end": ({"endless": True}, "larger than 524288 bytes"),
    "compressed": (
        {"body": b"\x1f\x8b\x08\x00" + b"x" * 90, "headers": {"content-encoding": "gzip"}},
        "unexpected|invalid|str",
    ),
    "slow": ({"delay_seconds": 30}, "no answer within 0.5 s"),
}


@pytest.mark.parametrize(("behaviour", "says"), BAD.values(), ids=BAD.keys())
async def test_an_issuer_that_answers_badly_changes_nothing(
    behaviour: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(f"{MODULE}._FETCH_SECONDS", 0.5)
    async with running_issuer(EC) as issuer, following(issuer.url) as (auth, keys):
        assert await tenant_of(auth, EC.token()) == "acme"
        for name, value in behaviour.items():
            setattr(issuer, name, value)
        keys._wanted.set()
        await eventually(lambda: not keys.connected)
        assert any(part in caplog.text for part in says.split("|"))
        assert await tenant_of(auth, EC.token("beta")) == "beta"
        issuer.endless = False


async def test_before_the_first_keys_tokens_are_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{MODULE}._UNKNOWN_KEY_SECONDS", 0.0)
    port = free_port()
    async with following(f"http://127.0.0.1:{port}/keys", JWT_SECRET=SECRET) as (auth, keys):
        with pytest.raises(UnavailableError) as caught:
            await tenant_of(auth, EC.token())
        assert (caught.value.status, caught.value.code) == (503, "unavailable")
        assert await tenant_of(auth, token("beta")) == "beta"
        async with running_issuer(EC, port=port):
            assert await tenant_of(auth, EC.token()) == "acme"
            assert keys.synced


async def test_keys_without_any_of_use_are_told(caplog: pytest.LogCaptureFixture) -> None:
    async with running_issuer() as issuer, following(issuer.url) as (auth, keys):
        await eventually(lambda: keys.synced)
        assert "lists no key that can check tokens" in caplog.text
        assert "does not list" in await refusal(auth, EC.token())


async def test_a_gateway_of_an_issuer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not ready before it has the keys; then tokens pass, and it says when the issuer is away."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(f"{MODULE}._REFRESH_SECONDS", 0.1)
    monkeypatch.setattr(f"{MODULE}._UNKNOWN_KEY_SECONDS", 0.0)
    write_services(tmp_path / "services.yaml")
    port = free_port()
    url = f"http://127.0.0.1:{port}/keys"
    headers = {"Authorization": f"Bearer {EC.token()}"}
    async with gateway_here(environment(tmp_path, JWT_SECRET="", GATEWAY_JWKS_URL=url)) as client:
        assert await status(client, "/readyz") == 503
        async with client.get("/api/usage", headers=headers) as answer:
            assert answer.status == 503
            assert answer.headers["Retry-After"] == "5"
            assert (await answer.json())["code"] == "unavailable"
        async with running_issuer(EC, port=port):
            await eventually(lambda: ready(client))
            async with client.get("/api/usage", headers=headers) as answer:
                assert (answer.status, (await answer.json())["tenantId"]) == (200, "acme")
            async with client.get("/metrics") as answer:
                assert 'aiservice_gateway_dependency_up{dependency="issuer"} 1.0' in await answer.text()
        await eventually(lambda: issuer_away(client))
        assert await status(client, "/readyz") == 200
        assert await status(client, "/api/usage", headers) == 200
    assert "GATEWAY_JWT_AUDIENCE is not set" in caplog.text
    assert EC.token().split(".")[2] not in caplog.text


async def status(client: aiohttp.ClientSession, path: str, headers: dict[str, str] | None = None) -> int:
    async with client.get(path, headers=headers) as answer:
        await answer.read()
        return answer.status


async def ready(client: aiohttp.ClientSession) -> bool:
    return await status(client, "/readyz") == 200


async def issuer_away(client: aiohttp.ClientSession) -> bool:
    async with client.get("/readyz") as answer:
        return (await answer.json())["dependencies"]["issuer"] is False
