"""Small pure parts of webhooks, jobs and idempotency keys: signatures, addresses, tries, fingerprints."""

from __future__ import annotations

import base64
import ipaddress

import pytest
from starlette.datastructures import Headers

from aiservice_gateway.errors import BadRequestError, SettingsError
from aiservice_gateway.services.addresses import is_public
from aiservice_gateway.services.fingerprint import Fingerprint
from aiservice_gateway.services.idempotency import parse_key
from aiservice_gateway.services.jobs.webhooks import verdict
from aiservice_gateway.settings import Settings
from aiservice_gateway.stores.jobs import WebhookState
from aiservice_gateway.webhook_signing import read_secret, signature_headers, tenant_key, write_secret

SECRET = "Zk3vR8qLw1xT6bNf9sHd2mYc7pJg4aUe"


def test_a_signature_is_the_specifications() -> None:
    # The known answer that implementations test with: https://docs.svix.com/receiving/verifying-payloads/how-manual
    key = base64.b64decode("plJ3nmyCDGBKInavdOK15jsl")
    body = b'{"event_type":"ping","data":{"success":true}}'
    assert signature_headers(key, "msg_loFOjxBNrRLzqYUf", 1731705121, body) == {
        "webhook-id": "msg_loFOjxBNrRLzqYUf",
        "webhook-timestamp": "1731705121",
        "webhook-signature": "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
    }


def test_tenants_have_secrets_of_their_own() -> None:
    key = bytes(range(32))
    assert len({tenant_key(key, "a"), tenant_key(key, "b"), key}) == 3
    assert read_secret(write_secret(tenant_key(key, "a"))) == tenant_key(key, "a")


@pytest.mark.parametrize(
    "secret",
    [
        "hunter2",
        base64.b64encode(bytes(range(32))).decode(),
        "whsec_",
        "whsec_!!!!",
        f"whsec_{base64.b64encode(bytes(range(23))).decode()}",
        f"whsec_{base64.b64encode(bytes(range(65))).decode()}",
        f"whsec_{base64.b64encode(bytes(32)).decode()}",
        f"whsec_{base64.b64encode(b'your-webhook-secret-change-me-please').decode()}",
    ],
)
def test_a_weak_webhook_secret_stops_the_start_and_is_not_shown(secret: str) -> None:
    with pytest.raises(SettingsError, match="GATEWAY_WEBHOOK_SECRET: ") as caught:
        Settings.load({"JWT_SECRET": SECRET, "GATEWAY_WEBHOOK_SECRET": secret})
    assert len(secret) < 7 or secret not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        *((one, False) for one in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.1.1", "172.16.0.1", "0.0.0.0")),
        *((one, False) for one in ("100.64.0.1", "224.0.0.1", "255.255.255.255", "168.63.129.16", "240.0.0.1")),
        *((one, False) for one in ("::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1")),
        *((one, False) for one in ("64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1")),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::5db8:d822", True),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


@pytest.mark.parametrize(
    ("status", "attempts", "then"),
    [
        (200, 1, (WebhookState.DELIVERED, 0)),
        (204, 3, (WebhookState.DELIVERED, 0)),
        (302, 1, (WebhookState.WAITING, 5)),
        (500, 2, (WebhookState.WAITING, 60)),
        (None, 2, (WebhookState.WAITING, 60)),
        (None, 3, (WebhookState.DEAD, 0)),
        (410, 1, (WebhookState.DEAD, 0)),
    ],
)
def test_what_follows_from_a_try(status: int | None, attempts: int, then: tuple[WebhookState, float]) -> None:
    assert verdict(status, attempts, (5, 60)) == then


def test_retries_are_a_list_of_seconds() -> None:
    loaded = Settings.load({"JWT_SECRET": SECRET, "GATEWAY_WEBHOOK_RETRY_SECONDS": "0.5, 10"})
    assert list(loaded.webhook_retry_seconds) == [0.5, 10]
    with pytest.raises(SettingsError, match="GATEWAY_WEBHOOK_RETRY_SECONDS"):
        Settings.load({"JWT_SECRET": SECRET, "GATEWAY_WEBHOOK_RETRY_SECONDS": "-1"})


def digest(body: bytes, content_type: str, size: int, query: bytes = b"") -> str:
    fingerprint = Fingerprint(query, Headers({"content-type": content_type}))
    for first in range(0, len(body), size):
        fingerprint.add(body[first : first + size])
    return fingerprint.digest()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 1000])
def test_a_fingerprint_knows_no_boundary_however_the_body_is_cut(size: int) -> None:
    def form(boundary: str, text: str = "hello") -> bytes:
        return f"--{boundary}\r\na: b\r\n\r\n{text}\r\n--{boundary}\r\n\r\n-\r\n--{boundary}--\r\n".encode()

    one = digest(form("abc"), "multipart/form-data; boundary=abc", size)
    assert one == digest(form("xyz-123"), 'multipart/form-data; boundary="xyz-123"', 7)
    assert one != digest(form("abc", "hallo"), "multipart/form-data; boundary=abc", size)
    assert one != digest(form("abc"), "multipart/form-data; boundary=abc", size, b"service=x")
    assert one != digest(form("abc"), "application/json", size)


def test_accept_counts_in_a_fingerprint_where_it_asks_for_a_file() -> None:
    def of(*accept: str) -> str:
        return Fingerprint(b"", Headers(raw=[(b"accept", value.encode()) for value in accept])).digest()

    assert of() == of("*/*") == of("application/json") == of("text/html", "*/*;q=0.8")
    assert of("image/png") == of("IMAGE/png")
    assert len({of(), of("image/png"), of("audio/*"), of("image/*"), of("image/png", "image/webp")}) == 5


@pytest.mark.parametrize(("given", "key"), [("a", "a"), ('"a-b"', "a-b"), ("x" * 255, "x" * 255)])
def test_keys(given: str, key: str) -> None:
    assert parse_key([given]) == key


@pytest.mark.parametrize("given", [[], ["a", "b"], [""], ['""'], ["a b"], ['a"b'], ["x" * 256]])
def test_what_is_no_key(given: list[str]) -> None:
    with pytest.raises(BadRequestError, match="Idempotency-Key"):
        parse_key(given)
