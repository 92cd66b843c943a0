"""Logins for registries, from the JSON that `docker login` and Secrets of type dockerconfigjson hold."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from pydantic import BaseModel, ConfigDict, ValidationError

from aiservice_downloader.image_name import ImageName


@dataclass(frozen=True)
class Login:
    """Credentials for one registry: a user and a password, or a token that is exchanged for others."""

    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str | None = field(default=None, repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


@dataclass(frozen=True)
class RegistryLogins:
    """Logins by registry, or by the beginning of a repository's name."""

    by_place: Mapping[str, Login] = field(default_factory=dict, repr=False)

    def for_image(self, image: ImageName) -> Login | None:
        """The login whose place fits the image best: the longest one, as the kubelet chooses."""
        names = [image.short]
        if image.is_docker_hub:
            names += [
                f"{alias}/{image.repository}" for alias in ("docker.io", "index.docker.io", "registry-1.docker.io")
            ]
        fitting = [place for place in self.by_place if any(_covers(place, name) for name in names)]
        return self.by_place[max(fitting, key=len)] if fitting else None


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""


class _Config(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    auths: dict[str, _Entry]


def parse_logins(text: str) -> RegistryLogins:
    """Reads the JSON.

    Raises:
        ValueError: Saying what is wrong, without what may be secret.
    """
    try:
        config = _Config.model_validate_json(text)
    except ValidationError as error:
        problems = "; ".join(
            ".".join(str(part) for part in item["loc"]) + (": " if item["loc"] else "") + item["msg"]
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise ValueError(problems) from None
    return RegistryLogins({_place(name): _login(name, entry) for name, entry in config.auths.items()})


def _login(name: str, entry: _Entry) -> Login:
    user, password = entry.username, entry.password
    if entry.auth:
        try:
            user, colon, password = base64.b64decode(entry.auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            colon = ""
        if not colon:
            raise ValueError(f"auths.{name}.auth is not the base64 of user:password")
    return Login(user, password, entry.identitytoken or None)


def _place(name: str) -> str:
    """A key of the file without the decoration that docker gives it: https://index.docker.io/v1/."""
    bare = name.split("://", 1)[-1].rstrip("/").lower()
    return bare.removesuffix("/v1").removesuffix("/v2")


def _covers(place: str, name: str) -> bool:
    """Whether a place (host, optional port, optional path; `*` stands for one part of a host) holds a repository."""
    host, _, path = place.partition("/")
    name_host, _, name_path = name.partition("/")
    if host.count(".") != name_host.count(".") or not fnmatchcase(name_host, host.replace("[", "[[]")):
        return False
    return not path or name_path == path or name_path.startswith(f"{path}/")
