"""Tokens that applications sign with a secret: what passes, and everything hostile that must not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest

from aiservice_gateway.errors import GatewayError, NoTenantError, UnauthenticatedError
from aiservice_gateway.factory import authenticator
from aiservice_gateway.models import Identity
from aiservice_gateway.services.auth import Authenticator
from aiservice_gateway.services.tenants import Tenants
from aiservice_gateway.services.tokens import make_token
from aiservice_gateway.settings import TokenSettings

SECRET = "Zk3vR8qLw1xT6bNf9sHd2mYc7pJg4aUe"
OTHER_SECRET = "Qw9eR2tY5uI8oP1aS4dF7gH0jK3lZ6xC"
LEEWAY_SECONDS = 10.0
HEADER = {"alg": "HS256", "typ": "JWT"}
GOOD = {"tenantId": "acme", "sub": "ann", "exp": int(time.time()) + 600}


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


def known(*, required: bool = False) -> Tenants:
    """No tenants, and sure of it."""
    tenants = Tenants(100, required=required)
    tenants.replace([])
    return tenants


def made(clock: Clock | None = None, **variables: str) -> Authenticator:
    """What checks tokens with these settings."""
    settings = TokenSettings.load({"JWT_SECRET": SECRET, **variables})
    return authenticator(settings, None, known(), clock or Clock())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def auth(clock: Clock) -> Authenticator:
    return made(clock)


def _part(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forge(header: object, payload: object, *, secret: str = SECRET, signature: str | None = None) -> str:
    """A token made by hand, so that it can be wrong in every way."""
    signed = f"{_part(header)}.{_part(payload)}"
    if signature is None:
        signature = _part(hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest())
    return f"{signed}.{signature}"


async def ask(auth: Authenticator, token: str) -> Identity:
    return await auth.identify([f"Bearer {token}"])


async def refusal(auth: Authenticator, token: str) -> str:
    """The words with which a token is refused; each time with 401 and how to do better."""
    with pytest.raises(UnauthenticatedError) as caught:
        await ask(auth, token)
    error = caught.value
    assert (error.status, error.code) == (401, "unauthenticated")
    assert error.headers == {"WWW-Authenticate": 'Bearer realm="aiservice", error="invalid_token"'}
    assert error.body("id-1") == {"error": error.message, "code": "unauthenticated", "request_id": "id-1"}
    assert token not in error.message
    assert SECRET not in error.message
    return error.message


async def test_a_good_token_names_tenant_and_user(auth: Authenticator) -> None:
    assert await ask(auth, forge(HEADER, GOOD)) == Identity("acme", "ann")


async def test_the_scheme_is_case_insensitive(auth: Authenticator) -> None:
    assert (await auth.identify([f"bEaReR  {forge(HEADER, GOOD)}"])).tenant == "acme"


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ([], "needs a token"),
        ([""], "not a bearer token"),
        (["Bearer"], "not a bearer token"),
        (["Bearer "], "not a bearer token"),
        (["Basic YTpi"], "not a bearer token"),
        (["Token abc"], "not a bearer token"),
        (["Bearer abc"], "cannot be read"),
        (["Bearer a.b"], "cannot be read"),
        (["Bearer a.b.c.d"], "cannot be read"),
        (["Bearer " + "a" * 9000], "longer than 8192"),
        (["Bearer é.ü.ö"], "cannot be read"),
        (["Bearer \x00"], "cannot be read"),
    ],
)
async def test_a_missing_or_malformed_header(auth: Authenticator, header: list[str], says: str) -> None:
    with pytest.raises(UnauthenticatedError, match=says):
        await auth.identify(header)


async def test_two_headers_are_one_too_many(auth: Authenticator) -> None:
    good = f"Bearer {forge(HEADER, GOOD)}"
    await auth.identify([good])
    with pytest.raises(UnauthenticatedError, match="more than one"):
        await auth.identify([good, good])


ALGORITHM = "algorithm is not accepted: only HS256 is."
UNREADABLE = "cannot be read"
SIGNATURE = "signature is wrong"
EXTENSION = "asks for an extension|cannot be read"
NESTED = forge(HEADER, GOOD)

HOSTILE_HEADERS = {
    **{f"alg {name}": ({"alg": name}, ALGORITHM) for name in ("none", "None", "NONE", "nOnE", " none", "none\x00", "")},
    "alg missing": ({"typ": "JWT"}, ALGORITHM),
    "alg null": ({"alg": None}, ALGORITHM),
    "alg a list": ({"alg": ["HS256"]}, ALGORITHM),
    "alg an object": ({"alg": {"HS256": 1}}, ALGORITHM),
    "alg a number": ({"alg": 256}, ALGORITHM),
    "alg in lower case": ({"alg": "hs256"}, ALGORITHM),
    **{f"alg {name}": ({"alg": name}, ALGORITHM) for name in ("HS384", "HS512", "RS256", "ES256", "PS256", "EdDSA")},
    "alg given twice": (b'{"alg":"HS256","alg":"none"}', ALGORITHM),
    "crit": ({**HEADER, "crit": ["exp"]}, EXTENSION),
    "crit of something new": ({**HEADER, "crit": ["x"], "x": 1}, EXTENSION),
    "crit empty": ({**HEADER, "crit": []}, EXTENSION),
    "b64 off": ({**HEADER, "crit": ["b64"], "b64": False}, EXTENSION),
    "b64 off without crit": ({**HEADER, "b64": False}, EXTENSION),
    "b64 a word": ({**HEADER, "b64": "false"}, EXTENSION),
    "kid a number": ({**HEADER, "kid": 7}, UNREADABLE),
    "kid an object": ({**HEADER, "kid": {"a": 1}}, UNREADABLE),
    "kid a list": ({**HEADER, "kid": ["a"]}, UNREADABLE),
    "kid null": ({**HEADER, "kid": None}, UNREADABLE),
    "a list": ([HEADER], UNREADABLE),
    "a word": ("HS256", UNREADABLE),
    "no JSON": (b"{", UNREADABLE),
    "no text": (b"\xff\xfe", UNREADABLE),
    "nested": (b"[" * 4000, UNREADABLE),
}


@pytest.mark.parametrize(("header", "says"), HOSTILE_HEADERS.values(), ids=HOSTILE_HEADERS.keys())
async def test_a_hostile_header(auth: Authenticator, header: object, says: str) -> None:
    """Its signature is right by HS256, and the claims are good: only the header is against it."""
    assert (
        says.split("|", maxsplit=1)[0] in (said := await refusal(auth, forge(header, GOOD)))
        or says.rsplit("|", maxsplit=1)[-1] in said
    )
    await refusal(auth, forge(header, GOOD, signature=""))


HOSTILE_SIGNATURES = {
    "of another secret": forge(HEADER, GOOD, secret=OTHER_SECRET),
    "of an empty secret": forge(HEADER, GOOD, secret=""),
    "none": forge(HEADER, GOOD, signature=""),
    "cut": forge(HEADER, GOOD)[:-3],
    "of other claims": forge(HEADER, GOOD, signature=forge(HEADER, {**GOOD, "sub": "bob"}).rpartition(".")[2]),
}


@pytest.mark.parametrize("token", HOSTILE_SIGNATURES.values(), ids=HOSTILE_SIGNATURES.keys())
async def test_a_hostile_signature(auth: Authenticator, token: str) -> None:
    assert SIGNATURE in await refusal(auth, token)


async def test_a_signature_that_is_no_base64(auth: Authenticator) -> None:
    assert UNREADABLE in await refusal(auth, forge(HEADER, GOOD, signature="!!!"))


NOT_A_TIME: tuple[Any, ...] = ("soon", {}, [], [1], True, float("nan"), float("inf"))

HOSTILE_CLAIMS = {
    "expired long ago": ({**GOOD, "exp": 1}, "expired"),
    "just expired": ({**GOOD, "exp": int(time.time() - LEEWAY_SECONDS) - 2}, "expired"),
    "exp negative": ({**GOOD, "exp": -1}, "expired"),
    "exp negative without end": ({**GOOD, "exp": -(10**400)}, "expired"),
    "exp true": ({**GOOD, "exp": True}, "expired"),
    "no exp": ({"tenantId": "acme"}, "never expires"),
    "exp null": ({**GOOD, "exp": None}, "never expires"),
    **{f"exp {value}": ({**GOOD, "exp": value}, UNREADABLE) for value in NOT_A_TIME if value is not True},
    "exp beyond floats": (b'{"tenantId":"acme","exp":1e999}', UNREADABLE),
    "not yet": ({**GOOD, "nbf": time.time() + 3600}, "not valid yet"),
    "never yet": ({**GOOD, "nbf": 10**400}, "not valid yet"),
    **{f"nbf {value}": ({**GOOD, "nbf": value}, UNREADABLE) for value in NOT_A_TIME if value is not True},
    "from the future": ({**GOOD, "iat": time.time() + 3600}, "not valid yet"),
    "iat beyond everything": ({**GOOD, "iat": 10**400}, "not valid yet"),
    **{f"iat {value}": ({**GOOD, "iat": value}, UNREADABLE) for value in NOT_A_TIME if value is not True},
    "jti a number": ({**GOOD, "jti": 5}, UNREADABLE),
    "a list": ([GOOD], UNREADABLE),
    "a text": ("acme", UNREADABLE),
    "null": (None, UNREADABLE),
    "no JSON": (b"not json", UNREADABLE),
    "no text": (b"\xff\xfe", UNREADABLE),
    "empty": (b"", UNREADABLE),
    "nested too deep": (b"[" * 4000, UNREADABLE),
    "another token": (NESTED.encode(), UNREADABLE),
    "another token as text": (json.dumps(NESTED).encode(), UNREADABLE),
}


@pytest.mark.parametrize(("claims", "says"), HOSTILE_CLAIMS.values(), ids=HOSTILE_CLAIMS.keys())
async def test_hostile_claims(auth: Authenticator, claims: object, says: str) -> None:
    assert says in await refusal(auth, forge(HEADER, claims))


async def test_a_token_in_a_token_is_not_unpacked(auth: Authenticator) -> None:
    """RFC 7519 section 5.2: `cty` says that the payload is a token itself. Nobody here looks for one."""
    assert UNREADABLE in await refusal(auth, forge({**HEADER, "cty": "JWT"}, NESTED.encode()))


KEY_IDS = (
    "../../dev/null",
    "/dev/null",
    "' OR 1=1 --",
    "x' UNION SELECT 'a",
    "http://127.0.0.1/key",
    "|/bin/true",
    "",
    "\x00",
    "JWT_SECRET",
    "k" * 4000,
)


@pytest.mark.parametrize("kid", KEY_IDS, ids=lambda kid: repr(kid)[:30])
async def test_a_key_id_brings_no_key(auth: Authenticator, kid: str) -> None:
    header = {**HEADER, "kid": kid}
    assert SIGNATURE in await refusal(auth, forge(header, GOOD, secret=OTHER_SECRET))
    assert SIGNATURE in await refusal(auth, forge(header, GOOD, secret=""))
    assert (await ask(auth, forge(header, GOOD))).tenant == "acme"  # it chooses among the secrets, or nothing


BROUGHT = (
    {"jwk": {"kty": "oct", "k": base64.urlsafe_b64encode(OTHER_SECRET.encode()).decode()}},
    {"jku": "http://127.0.0.1:1/keys"},
    {"x5u": "http://127.0.0.1:1/chain"},
    {"x5c": ["MIIB"]},
    {"x5t": "AAAA"},
)


@pytest.mark.parametrize("brought", BROUGHT, ids=lambda brought: next(iter(brought)))
async def test_a_key_that_the_token_brings_is_ignored(auth: Authenticator, brought: dict[str, object]) -> None:
    assert SIGNATURE in await refusal(auth, forge({**HEADER, **brought}, GOOD, secret=OTHER_SECRET))
    assert (await ask(auth, forge({**HEADER, **brought}, GOOD))).tenant == "acme"


@pytest.mark.parametrize("tenant", [None, "", 7, True, [], {"a": 1}, "a" * 257, "a\x00b", "a\nb", "\u202e"], ids=repr)
async def test_a_token_that_names_no_tenant_is_forbidden(auth: Authenticator, tenant: object) -> None:
    with pytest.raises(NoTenantError, match="'tenantId' claim") as caught:
        await ask(auth, forge(HEADER, {**GOOD, "tenantId": tenant}))
    assert caught.value.status == 403
    assert caught.value.body("id-1") == {"error": caught.value.message, "code": "no_tenant", "request_id": "id-1"}
    assert 'error="insufficient_scope"' in caught.value.headers["WWW-Authenticate"]


async def test_a_token_without_the_tenant_claim_is_forbidden(auth: Authenticator) -> None:
    with pytest.raises(NoTenantError):
        await ask(auth, forge(HEADER, {"tenant_id": "acme", "exp": GOOD["exp"]}))


async def test_of_a_claim_given_twice_the_signed_last_one_counts_every_time(auth: Authenticator) -> None:
    token = forge(HEADER, f'{{"tenantId":"a","tenantId":"b","exp":1,"exp":{GOOD["exp"]}}}'.encode())
    assert [(await ask(auth, token)).tenant for _ in range(2)] == ["b", "b"]
    assert "expired" in await refusal(auth, forge(HEADER, f'{{"tenantId":"a","exp":{GOOD["exp"]},"exp":1}}'.encode()))


@pytest.mark.parametrize(
    ("user", "read"), [("ann", "ann"), (42, "42"), (True, None), ([], None), ({}, None), ("", None), (None, None)]
)
async def test_the_user_is_optional(auth: Authenticator, user: object, read: str | None) -> None:
    assert (await ask(auth, forge(HEADER, {**GOOD, "sub": user}))).user == read


async def test_claims_can_have_other_names() -> None:
    auth = made(GATEWAY_TENANT_CLAIM="https://example.com/org", GATEWAY_USER_CLAIM="profile.id")
    claims = {
        "https://example.com/org": "acme",
        "profile": {"id": "ann"},
        "tenantId": "other",
        "sub": "other",
        "exp": GOOD["exp"],
    }
    assert await ask(auth, forge(HEADER, claims)) == Identity("acme", "ann")


async def test_audience_and_issuer_are_not_checked_unless_set(auth: Authenticator) -> None:
    for aud, iss in [("app", "app"), (["a", 7], 7), ({}, []), (None, None)]:
        assert (await ask(auth, forge(HEADER, {**GOOD, "aud": aud, "iss": iss}))).tenant == "acme"


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"iss": "https://issuer.example"}, "must have an 'aud' claim"),
        ({"aud": None, "iss": "https://issuer.example"}, "must have an 'aud' claim"),
        ({"aud": [], "iss": "https://issuer.example"}, "must have an 'aud' claim"),
        ({"aud": "other", "iss": "https://issuer.example"}, "its audience is another"),
        ({"aud": "gatew", "iss": "https://issuer.example"}, "its audience is another"),
        ({"aud": ["other"], "iss": "https://issuer.example"}, "its audience is another"),
        ({"aud": {"gateway": 1}, "iss": "https://issuer.example"}, "its audience is another"),
        ({"aud": ["gateway", 7], "iss": "https://issuer.example"}, "its audience is another"),
        ({"aud": 7, "iss": "https://issuer.example"}, "its audience is another"),
        ({"aud": "gateway"}, "must have an 'iss' claim"),
        ({"aud": "gateway", "iss": "https://issuer.example/"}, "issuer is not one that"),
        ({"aud": "gateway", "iss": "https://issuer"}, "issuer is not one that"),
        ({"aud": "gateway", "iss": ["https://issuer.example"]}, "issuer is not one that"),
        ({"aud": "gateway", "iss": {}}, "issuer is not one that"),
        ({"aud": "gateway", "iss": None}, "issuer is not one that"),
    ],
)
async def test_audience_and_issuer_are_checked_when_set(claims: dict[str, object], says: str) -> None:
    auth = made(
        GATEWAY_JWT_ISSUER="https://issuer.example,https://old.example", GATEWAY_JWT_AUDIENCE="gateway, console"
    )
    assert says in await refusal(auth, forge(HEADER, {**GOOD, **claims}))
    for aud, iss in [("gateway", "https://issuer.example"), (["x", "console"], "https://old.example")]:
        assert (await ask(auth, forge(HEADER, {**GOOD, "aud": aud, "iss": iss}))).tenant == "acme"


@pytest.mark.parametrize(("leeway", "passes"), [("0", False), ("120", True)])
async def test_clocks_may_differ_by_what_is_set(leeway: str, passes: bool) -> None:
    auth = made(GATEWAY_JWT_LEEWAY_SECONDS=leeway)
    for shifted in ({"exp": int(time.time()) - 60}, {"nbf": int(time.time()) + 60}, {"iat": int(time.time()) + 60}):
        token = forge(HEADER, {**GOOD, **shifted})
        if passes:
            assert (await ask(auth, token)).tenant == "acme"
        else:
            await refusal(auth, token)


@pytest.mark.parametrize(
    ("role", "admin"),
    [
        ("admin", True),
        (["user", "admin"], True),
        ("Admin", False),
        ("admins", False),
        ("user admin", False),
        (["administrator"], False),
        ([["admin"]], False),
        ({"admin": True}, False),
        (True, False),
        (None, False),
    ],
)
async def test_administrators_are_those_with_the_role(role: object, admin: bool) -> None:
    token = forge(HEADER, {**GOOD, "realm_access": {"roles": role}, "role": "admin"})
    path = "realm_access.roles"
    assert (await ask(made(GATEWAY_ADMIN_ROLE="admin", GATEWAY_ROLE_CLAIM=path), token)).admin is admin
    assert not (await ask(made(GATEWAY_ROLE_CLAIM=path), token)).admin, "nobody is, where no role is named"


async def test_secrets_overlap_while_they_are_changed() -> None:
    old, new = OTHER_SECRET, OTHER_SECRET[::-1]
    auth = made(GATEWAY_JWT_SECRETS=json.dumps({"2025": old, "2026": new}))
    for secret in (SECRET, old, new):
        assert (await ask(auth, forge(HEADER, GOOD, secret=secret))).tenant == "acme"
        assert (await ask(auth, forge({**HEADER, "kid": "unknown"}, GOOD, secret=secret))).tenant == "acme"
    assert (await ask(auth, forge({**HEADER, "kid": "2025"}, GOOD, secret=old))).tenant == "acme"
    for kid, secret in (("2025", new), ("2026", old), ("2025", SECRET)):
        assert SIGNATURE in await refusal(auth, forge({**HEADER, "kid": kid}, GOOD, secret=secret))
    assert SIGNATURE in await refusal(made(), forge({**HEADER, "kid": "2025"}, GOOD, secret=old))
    assert "expired" in await refusal(auth, forge(HEADER, {**GOOD, "exp": 1}, secret=new))


async def test_named_secrets_alone_suffice() -> None:
    auth = made(JWT_SECRET="", GATEWAY_JWT_SECRETS=json.dumps({"a": OTHER_SECRET}))
    assert (await ask(auth, forge({**HEADER, "kid": "a"}, GOOD, secret=OTHER_SECRET))).tenant == "acme"
    assert SIGNATURE in await refusal(auth, forge({**HEADER, "kid": "a"}, GOOD))


async def test_a_remembered_token_is_forgotten_when_it_expires(auth: Authenticator, clock: Clock) -> None:
    token = forge(HEADER, {**GOOD, "exp": int(clock.now) + 60})
    await ask(auth, token)
    clock.now += 60 + LEEWAY_SECONDS - 2
    await ask(auth, token)
    clock.now += 3
    assert "expired" in await refusal(auth, token)
    assert not auth._verified


@pytest.mark.parametrize("exp", [2**70, 10**400])
async def test_a_token_of_the_far_future_is_remembered_too(auth: Authenticator, exp: int) -> None:
    token = forge(HEADER, {**GOOD, "exp": exp})
    assert await ask(auth, token) == await ask(auth, token)
    assert len(auth._verified) == 1


async def test_memory_for_tokens_is_bounded(auth: Authenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiservice_gateway.services.auth._CACHED_TOKENS", 3)
    for number in range(10):
        await ask(auth, forge(HEADER, {**GOOD, "jti": str(number)}))
    assert len(auth._verified) == 3


async def test_a_remembered_token_is_not_verified_again(auth: Authenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    token = forge(HEADER, GOOD)
    await ask(auth, token)
    monkeypatch.setattr(jwt.PyJWT, "decode", lambda *_, **__: pytest.fail("verified"))
    assert await ask(auth, token) == Identity("acme", "ann")
    auth.forget()
    with pytest.raises(pytest.fail.Exception, match="verified"):
        await ask(auth, token)


async def test_made_tokens_pass(auth: Authenticator) -> None:
    token = make_token(SECRET, {"tenantId": "acme"}, lifetime_seconds=60, now=time.time())
    assert await ask(auth, token) == Identity("acme", None)
    claims: dict[str, Any] = jwt.decode(token, SECRET, ["HS256"])
    assert claims["exp"] - claims["iat"] == 60


async def test_no_error_tells_the_token_or_the_secret(auth: Authenticator) -> None:
    token = forge(HEADER, GOOD, secret=OTHER_SECRET)
    with pytest.raises(GatewayError) as caught:
        await ask(auth, token)
    assert token not in str(caught.value)
    assert SECRET not in str(caught.value)
