"""What is taken of the keys that an issuer lists."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aiservice_gateway.services.jwks import read_keys
from support.issuer import SigningKey

RSA = SigningKey("RS256", "rsa")
EC = SigningKey("ES256", "ec")
ED = SigningKey("EdDSA", "ed")


def read(*keys: Any) -> list[tuple[str | None, set[str]]]:
    """Key ids and algorithms of what is taken."""
    return [(key.kid, set(key.algorithms)) for key in read_keys(json.dumps({"keys": keys}).encode())]


def without(jwk: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in jwk.items() if name not in names}


def test_each_kind_of_key_has_algorithms_of_its_own() -> None:
    listed = [without(key.public, "alg") for key in (RSA, EC, ED)]
    assert read(*listed) == [("rsa", {"RS256", "PS256"}), ("ec", {"ES256"}), ("ed", {"EdDSA"})]


def test_a_key_that_states_an_algorithm_has_no_other() -> None:
    assert read({**RSA.public, "alg": "PS256"}) == [("rsa", {"PS256"})]
    assert read({**RSA.public, "alg": "RS512"}, {**RSA.public, "alg": "HS256"}, {**RSA.public, "alg": 7}) == []
    assert read({**EC.public, "alg": "RS256"}, {**ED.public, "alg": "ES256"}) == []


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "a", "alg": "HS256"},
        {"kty": "oct", "k": "c2VjcmV0", "alg": "RS256"},
        {**RSA.public, "use": "enc"},
        {**RSA.public, "key_ops": ["encrypt"]},
        {**RSA.public, "key_ops": "verify"},
        {**RSA.public, "d": "AQAB"},
        RSA.private,
        EC.private,
        ED.private,
        SigningKey("RS256", "small", bits=1024).public,
        {**RSA.public, "e": "Ag"},
        {**RSA.public, "e": "AQ"},
        {**RSA.public, "e": "_" * 200},
        {**RSA.public, "n": "AA"},
        {**RSA.public, "n": "_" * 2000},
        {**RSA.public, "n": "_" * 200_000},
        {**RSA.public, "n": "not base64!"},
        {**RSA.public, "n": 7},
        {**RSA.public, "n": None},
        {**RSA.public, "kid": 7},
        {**RSA.public, "kty": ["RSA"]},
        {**RSA.public, "kty": "EC"},
        without(RSA.public, "n"),
        {**EC.public, "crv": "P-384"},
        {**EC.public, "crv": "secp256k1"},
        {**EC.public, "x": EC.public["y"]},
        {**EC.public, "x": "AA"},
        without(EC.public, "y"),
        {**ED.public, "crv": "Ed448"},
        {**ED.public, "crv": "X25519"},
        {**ED.public, "x": "AA"},
        {},
        None,
        "key",
        [],
    ],
    ids=lambda key: json.dumps(key)[:60],
)
def test_a_key_that_cannot_be_used_is_left_out_and_the_others_stay(key: object) -> None:
    assert read(key, EC.public) == [("ec", {"ES256"})]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"keys":{}}', b'{"keys":null}', b"\xff", b"[" * 9999])
def test_what_is_no_list_of_keys_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_keys(body)


def test_too_many_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="65 keys, more than 64"):
        read(*[EC.public] * 65)


def test_keys_are_equal_when_they_mean_the_same() -> None:
    body = json.dumps({"keys": [RSA.public, EC.public]}).encode()
    padded = json.dumps({"keys": [{**RSA.public, "x5t": "new"}, EC.public], "more": 1}, indent=1).encode()
    assert read_keys(body) == read_keys(padded)
    assert read_keys(body) != read_keys(json.dumps({"keys": [EC.public]}).encode())
    assert read_keys(body) != read_keys(json.dumps({"keys": [RSA.public, SigningKey("ES256", "ec").public]}).encode())
