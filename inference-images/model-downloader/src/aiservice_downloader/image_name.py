"""Names of OCI images and artifacts: `registry/repository:tag` or `registry/repository@sha256:...`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

_REFERENCE = re.compile(
    r"(?P<registry>[A-Za-z0-9.-]+(?::\d+)?|\[[0-9a-fA-F:]+\](?::\d+)?)/"
    r"(?P<repository>[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_DOCKER_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


@dataclass(frozen=True)
class ImageName:
    """Where an image is, and which one."""

    registry: str
    """Host and port as written."""
    repository: str
    reference: str
    """A digest, or else a tag."""

    @property
    def is_docker_hub(self) -> bool:
        """Whether the registry is Docker Hub, whose API and logins have other names than the registry itself."""
        return self.registry in _DOCKER_HUB

    @property
    def api(self) -> str:
        """Address of the repository in the registry's API. Plain HTTP is for this machine only, as with docker."""
        host = "registry-1.docker.io" if self.is_docker_hub else self.registry
        scheme = "http" if _is_loopback(urlsplit(f"//{host}").hostname or "") else "https"
        return f"{scheme}://{host}/v2/{self.repository}"

    @property
    def short(self) -> str:
        """The repository with its registry, for messages and for choosing a login."""
        return f"{self.registry}/{self.repository}"


def parse_image(text: str) -> ImageName:
    """Reads the name of an image; the tag is `latest` where neither tag nor digest is given.

    Raises:
        ValueError: Saying what is wrong with it.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no image: write registry/repository:tag or registry/repository@sha256:...")
    registry, repository = match["registry"], match["repository"]
    if not any(mark in registry for mark in ".:[") and registry != "localhost":
        raise ValueError(f"{text!r} names no registry: write it out, as in docker.io/{text}")
    name = ImageName(registry.lower(), repository, match["digest"] or match["tag"] or "latest")
    if name.is_docker_hub and "/" not in repository:
        return ImageName(name.registry, f"library/{repository}", name.reference)
    return name


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
