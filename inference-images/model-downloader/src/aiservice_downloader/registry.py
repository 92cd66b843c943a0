"""Speaks the distribution API of OCI registries: tokens, manifests, and the addresses of blobs."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic

from pydantic import BaseModel, ConfigDict, ValidationError

from aiservice_downloader.client import HttpClient, parse_url, raise_for_answer, shown
from aiservice_downloader.errors import DownloadError, Reason
from aiservice_downloader.files import Address
from aiservice_downloader.image_name import ImageName
from aiservice_downloader.registry_login import Login
from aiservice_downloader.retry import Patience

MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_CHALLENGE = re.compile(
    r'(?:^|(?<=[,\s]))(?P<scheme>Bearer|Basic)\s+(?P<fields>(?:[a-z_]+="[^"]*"(?:\s*,\s*)?)*)', re.IGNORECASE
)
_FIELD = re.compile(r'([a-z_]+)="([^"]*)"', re.IGNORECASE)
_TOKEN_SECONDS = 60.0  # what a token lasts that does not say
_EARLY_SECONDS = 10.0  # a token is renewed before it ends, by so much


@dataclass(frozen=True)
class Challenge:
    """What a registry wants to see: a token from somewhere, or user and password."""

    scheme: str
    fields: Mapping[str, str]


def parse_challenge(header: str | None) -> Challenge | None:
    """Reads a WWW-Authenticate header; the token is preferred where both are offered."""
    found = [
        Challenge(match["scheme"].lower(), {name.lower(): value for name, value in _FIELD.findall(match["fields"])})
        for match in _CHALLENGE.finditer(header or "")
    ]
    return next((challenge for challenge in found if challenge.scheme == "bearer"), found[0] if found else None)


class _Token(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    token: str = ""
    access_token: str = ""
    expires_in: float = _TOKEN_SECONDS


class Registry:
    """One repository of a registry. May be used from several threads."""

    def __init__(self, image: ImageName, login: Login | None, client: HttpClient, patience: Patience) -> None:
        """Asks for nothing yet."""
        self._image = image
        self._login = login
        self._client = client
        self._patience = patience
        self._challenge: Challenge | None = None
        self._authorization: dict[str, str] = {}
        self._lasts_until = float("inf")
        self._lock = threading.Lock()

    def manifest(self, reference: str) -> tuple[bytes, str]:
        """A manifest or an index, and its digest.

        Raises:
            DownloadError: If it is not to be had, or is not what its digest says.
        """
        url = f"{self._image.api}/manifests/{reference}"
        body = self._patience.run(lambda: self._get(url, ", ".join(MANIFEST_TYPES)))
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if reference.startswith("sha256:") and digest != reference:
            raise DownloadError(
                Reason.CHECKSUM_MISMATCH,
                f"{shown(url)} has the digest {digest}: the registry, or what is between, changes what it gives.",
            )
        return body, digest

    def blob_url(self, digest: str) -> str:
        """Where a layer is."""
        return f"{self._image.api}/blobs/{digest}"

    def sign(self, url: str) -> Address:
        """The address of the next request, with a token that is still good."""
        with self._lock:
            if monotonic() > self._lasts_until and self._challenge is not None:
                self._authorization = self._patience.run(self._renewal(self._challenge))
            return Address(url, self._authorization)

    @property
    def access_hint(self) -> str:
        """What to do if the registry refuses: the end of a sentence."""
        if self._login is None:
            return (
                f"{self._image.short} is private or does not exist; check its name, and name a Secret of type "
                "kubernetes.io/dockerconfigjson with a login for this registry in the model's spec"
            )
        return f"the login for {self._image.registry} is wrong or may not pull {self._image.repository}; use another"

    def _get(self, url: str, accept: str) -> bytes:
        address = self.sign(url)
        with self._client.open("GET", url, headers={"Accept": accept}, private=address.headers) as response:
            if response.status_code == HTTPStatus.OK:
                return self._client.document(response)
            challenge = parse_challenge(response.headers.get("WWW-Authenticate"))
            if response.status_code != HTTPStatus.UNAUTHORIZED or challenge is None or self._challenge is not None:
                raise_for_answer(response, url=url, access_hint=self.access_hint)
        with self._lock:
            self._challenge = challenge
            self._authorization = self._renewal(challenge)() if challenge is not None else {}
        return self._get(url, accept)

    def _renewal(self, challenge: Challenge) -> Callable[[], dict[str, str]]:
        return lambda: self._authorize(challenge)

    def _authorize(self, challenge: Challenge) -> dict[str, str]:
        """What the registry wants to see, as a header."""
        if challenge.scheme == "basic":
            return {"Authorization": self._login.basic} if self._login is not None else {}
        realm = challenge.fields.get("realm", "")
        self._check_realm(realm)
        scope = challenge.fields.get("scope") or f"repository:{self._image.repository}:pull"
        asked = {"scope": scope, **({"service": challenge.fields["service"]} if "service" in challenge.fields else {})}
        login = self._login
        if login is not None and login.identity_token is not None:
            form = {
                **asked,
                "grant_type": "refresh_token",
                "client_id": "aiservice",
                "refresh_token": login.identity_token,
            }
            opened = self._client.open("POST", realm, headers={}, private={}, form=form)
        else:
            url = str(parse_url(realm).copy_merge_params(asked))
            private = {"Authorization": login.basic} if login is not None else {}
            opened = self._client.open("GET", url, headers={}, private=private)
        with opened as response:
            if response.status_code != HTTPStatus.OK:
                raise_for_answer(response, url=realm, access_hint=self.access_hint)
            body = self._client.document(response)
        try:
            token = _Token.model_validate_json(body)
        except ValidationError as error:
            raise DownloadError(Reason.BAD_SOURCE, f"{shown(realm)} gives no token that can be read.") from error
        self._lasts_until = monotonic() + max(token.expires_in - _EARLY_SECONDS, _EARLY_SECONDS)
        return {"Authorization": f"Bearer {token.token or token.access_token}"}

    def _check_realm(self, realm: str) -> None:
        """A registry says where tokens are given out, and the login goes there."""
        secure = self._image.api.startswith("https:")
        if not realm.startswith("https://" if secure else ("http://", "https://")):
            raise DownloadError(
                Reason.BAD_SOURCE,
                f"{self._image.registry} sends its users for a token to {realm!r}, which is no https address: a login "
                "must not go there.",
            )
