"""Tokens: what passes, and everything hostile that must not."""

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
from aiservice_gateway.models import Identity
from aiservice_gateway.services.auth import LEEWAY_SECONDS, Authenticator, make_token

SECRET = "Zk3vR8qLw1xT6bNf9sHd2mYc7pJg4aUe"
OTHER_SECRET = "Qw9eR2tY5uI8oP1aS4dF7gH0jK3lZ6xC"
HEADER = {"alg": "HS256", "typ": "JWT"}
GOOD = {"tenantId": "acme", "sub": "ann", "exp": int(time.time()) + 600}


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def auth(clock: Clock) -> Authenticator:
    return Authenticator(SECRET, tenant_claim="tenantId", user_claim="sub", clock=clock)


def _part(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forge(header: object, payload: object, *, secret: str = SECRET, signature: str | None = None) -> str:
    """A token made by hand, so that it can be wrong in every way."""
    signed = f"{_part(header)}.{_part(payload)}"
    if signature is None:
        signature = _part(hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest())
    return f"{signed}.{signature}"


def ask(auth: Authenticator, token: str) -> Identity:
    return auth.identify([f"Bearer {token}"])


def test_a_good_token_names_tenant_and_user(auth: Authenticator) -> None:
    assert ask(auth, forge(HEADER, GOOD)) == Identity("acme", "ann")


def test_the_scheme_is_case_insensitive(auth: Authenticator) -> None:
    assert auth.identify([f"bEaReR  {forge(HEADER, GOOD)}"]).tenant == "acme"


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
def test_a_missing_or_malformed_header(auth: Authenticator, header: list[str], says: str) -> None:
    with pytest.raises(UnauthenticatedError, match=says):
        auth.identify(header)


def test_two_headers_are_one_too_many(auth: Authenticator) -> None:
    good = f"Bearer {forge(HEADER, GOOD)}"
    with pytest.raises(UnauthenticatedError, match="more than one"):
        auth.identify([good, good])


@pytest.mark.parametrize(
    ("token", "says"),
    [
        pytest.param(forge({"alg": "none"}, GOOD, signature=""), "algorithm is not accepted", id="alg none"),
        pytest.param(forge({"alg": "None"}, GOOD, signature=""), "algorithm is not accepted", id="alg None"),
        pytest.param(forge({"alg": "none"}, GOOD), "algorithm is not accepted", id="alg none but signed"),
        pytest.param(forge({}, GOOD), "cannot be read|not accepted", id="no alg"),
        pytest.param(forge({"alg": "HS384"}, GOOD), "algorithm is not accepted", id="alg HS384"),
        pytest.param(forge({"alg": "RS256"}, GOOD), "algorithm is not accepted", id="key confusion"),
        pytest.param(forge({"alg": ["HS256"]}, GOOD), "cannot be read|not accepted", id="alg a list"),
        pytest.param(forge(HEADER, GOOD, secret=OTHER_SECRET), "signature is wrong", id="other secret"),
        pytest.param(forge(HEADER, GOOD, secret=""), "signature is wrong", id="empty secret"),
        pytest.param(forge(HEADER, GOOD, signature=""), "signature is wrong", id="no signature"),
        pytest.param(forge(HEADER, GOOD, signature="!!!"), "cannot be read|is wrong", id="signature no base64"),
        pytest.param(forge(HEADER, {**GOOD, "exp": 1}), "expired", id="expired long ago"),
        pytest.param(
            forge(HEADER, {**GOOD, "exp": int(time.time() - LEEWAY_SECONDS) - 2}), "expired", id="just expired"
        ),
        pytest.param(forge(HEADER, {"tenantId": "acme"}), "never expires", id="no exp"),
        pytest.param(forge(HEADER, {**GOOD, "exp": None}), "never expires", id="exp null"),
        pytest.param(forge(HEADER, {**GOOD, "exp": "soon"}), "cannot be read", id="exp a word"),
        pytest.param(forge(HEADER, {**GOOD, "exp": {}}), "cannot be read", id="exp an object"),
        pytest.param(forge(HEADER, b'{"tenantId":"acme","exp":1e999}'), "cannot be read", id="exp infinite"),
        pytest.param(forge(HEADER, {**GOOD, "exp": -1}), "expired", id="exp negative"),
        pytest.param(forge(HEADER, {**GOOD, "nbf": time.time() + 3600}), "not valid yet", id="not yet"),
        pytest.param(forge(HEADER, {**GOOD, "iat": time.time() + 3600}), "not valid yet", id="from the future"),
        pytest.param(forge(HEADER, [GOOD]), "cannot be read", id="payload a list"),
        pytest.param(forge(HEADER, b"not json"), "cannot be read", id="payload no JSON"),
        pytest.param(forge(HEADER, b"\xff\xfe"), "cannot be read", id="payload no text"),
        pytest.param(forge([], GOOD), "cannot be read", id="header a list"),
        pytest.param(forge({**HEADER, "crit": ["exp"], "b64": False}, GOOD), "cannot be read|wrong", id="b64 off"),
        pytest.param(forge(HEADER, b"[" * 4000), "cannot be read", id="nested"),
    ],
)
def test_hostile_tokens(auth: Authenticator, token: str, says: str) -> None:
    with pytest.raises(UnauthenticatedError, match=says) as caught:
        ask(auth, token)
    assert caught.value.status == 401
    assert caught.value.headers["WWW-Authenticate"].startswith("Bearer ")


@pytest.mark.parametrize("kid", ["../../dev/null", "' OR 1=1", "http://127.0.0.1/key", {"a": 1}])
def test_a_key_id_chooses_no_key(auth: Authenticator, kid: object) -> None:
    with pytest.raises(UnauthenticatedError):
        ask(auth, forge({**HEADER, "kid": kid, "jku": "http://127.0.0.1/"}, GOOD, secret=OTHER_SECRET))


@pytest.mark.parametrize("tenant", [None, "", 7, True, [], {"a": 1}, "a" * 257, "a\x00b", "a\nb", "\u202e"], ids=repr)
def test_a_token_that_names_no_tenant_is_forbidden(auth: Authenticator, tenant: object) -> None:
    with pytest.raises(NoTenantError, match="'tenantId' claim") as caught:
        ask(auth, forge(HEADER, {**GOOD, "tenantId": tenant}))
    assert caught.value.status == 403


def test_a_token_without_the_tenant_claim_is_forbidden(auth: Authenticator) -> None:
    with pytest.raises(NoTenantError):
        ask(auth, forge(HEADER, {"tenant_id": "acme", "exp": GOOD["exp"]}))


def test_of_a_claim_given_twice_the_signed_last_one_counts_every_time(auth: Authenticator) -> None:
    token = forge(HEADER, f'{{"tenantId":"a","tenantId":"b","exp":{GOOD["exp"]}}}'.encode())
    assert [ask(auth, token).tenant for _ in range(2)] == ["b", "b"]


@pytest.mark.parametrize(
    ("user", "read"), [("ann", "ann"), (42, "42"), (True, None), ([], None), ("", None), (None, None)]
)
def test_the_user_is_optional(auth: Authenticator, user: object, read: str | None) -> None:
    assert ask(auth, forge(HEADER, {**GOOD, "sub": user})).user == read


def test_claims_can_have_other_names() -> None:
    auth = Authenticator(SECRET, tenant_claim="org", user_claim="uid")
    claims = {"org": "acme", "uid": "ann", "tenantId": "other", "sub": "other", "exp": GOOD["exp"]}
    assert ask(auth, forge(HEADER, claims)) == Identity("acme", "ann")


def test_a_token_for_any_audience_passes(auth: Authenticator) -> None:
    assert ask(auth, forge(HEADER, {**GOOD, "aud": "app", "iss": "app"})).tenant == "acme"


def test_a_remembered_token_is_forgotten_when_it_expires(auth: Authenticator, clock: Clock) -> None:
    token = forge(HEADER, {**GOOD, "exp": int(clock.now) + 60})
    ask(auth, token)
    clock.now += 60 + LEEWAY_SECONDS - 2
    ask(auth, token)
    clock.now += 3
    with pytest.raises(UnauthenticatedError, match="expired"):
        ask(auth, token)


@pytest.mark.parametrize("exp", [2**70, 10**400])
def test_a_token_of_the_far_future_is_remembered_too(auth: Authenticator, exp: int) -> None:
    token = forge(HEADER, {**GOOD, "exp": exp})
    assert ask(auth, token) == ask(auth, token)


def test_memory_for_tokens_is_bounded(auth: Authenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiservice_gateway.services.auth._CACHED_TOKENS", 3)
    for number in range(10):
        ask(auth, forge(HEADER, {**GOOD, "jti": str(number)}))
    assert len(auth._verified) == 3


def test_made_tokens_pass(auth: Authenticator) -> None:
    token = make_token(SECRET, {"tenantId": "acme"}, lifetime_seconds=60, now=time.time())
    assert ask(auth, token) == Identity("acme", None)
    claims: dict[str, Any] = jwt.decode(token, SECRET, ["HS256"])
    assert claims["exp"] - claims["iat"] == 60


def test_no_error_tells_the_token_or_the_secret(auth: Authenticator) -> None:
    token = forge(HEADER, GOOD, secret=OTHER_SECRET)
    with pytest.raises(GatewayError) as caught:
        ask(auth, token)
    assert token not in str(caught.value)
    assert SECRET not in str(caught.value)
