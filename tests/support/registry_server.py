"""A real OCI registry (the CNCF's distribution) on a folder, with or without logins, and a small client to fill it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import signal
import subprocess
import tarfile
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

from support.cluster import tool
from support.databases import Server, free_port
from support.file_server import Exchange, FileServer, serving
from support.s3_server import answers

USER, PASSWORD = "puller", "s3cret-pull"
_BCRYPT = "$2b$04$oyDaGsEN7jn1khD7dH.uVelXd60L2oJC0s9LbuAWr0E.nfsFhDfR."  # of PASSWORD
TITLE, UNPACK = "org.opencontainers.image.title", "io.deis.oras.content.unpack"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
TAR_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
_EMPTY = {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2}


def tar(entries: Mapping[str, bytes | None] | Sequence[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tar file: of contents by name (None makes a folder), or of headers with contents."""
    output = io.BytesIO()
    if isinstance(entries, Mapping):
        entries = [(_header(name, content), content or b"") for name, content in entries.items()]
    with tarfile.open(fileobj=output, mode="w") as archive:
        for header, content in entries:
            archive.addfile(header, io.BytesIO(content))
    return output.getvalue()


def _header(name: str, content: bytes | None) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size = len(content or b"")
    if content is None:
        header.type = tarfile.DIRTYPE
    return header


def symlink(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    """An entry that is a link."""
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    return header, b""


@dataclass(frozen=True)
class Layer:
    """A layer to push."""

    data: bytes
    media_type: str = TAR_GZIP
    annotations: dict[str, str] = field(default_factory=dict)


def image_layer(entries: Mapping[str, bytes | None] | Sequence[tuple[tarfile.TarInfo, bytes]]) -> Layer:
    """A layer of an image: a tar file, packed."""
    return Layer(gzip.compress(tar(entries), 1))


def file_layer(name: str, data: bytes) -> Layer:
    """A file of an artifact, as `oras push` makes it."""
    return Layer(data, "application/vnd.oci.image.layer.v1.tar", {TITLE: name})


@dataclass
class RegistryServer:
    """The registry, and what is needed to push to it."""

    port: int
    headers: dict[str, str] = field(default_factory=dict)
    token_port: int | None = None

    @property
    def host(self) -> str:
        """The registry's name in names of images."""
        return f"127.0.0.1:{self.port}"

    def push(self, repository: str, tag: str, layers: list[Layer]) -> str:
        """Pushes an image or artifact; returns the digest of its manifest."""
        config = {**_EMPTY, "digest": self._push_blob(repository, b"{}")}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": [
                {
                    "mediaType": layer.media_type,
                    "digest": self._push_blob(repository, layer.data),
                    "size": len(layer.data),
                    "annotations": layer.annotations,
                }
                for layer in layers
            ],
        }
        return self.push_manifest(repository, tag, manifest)

    def push_index(self, repository: str, tag: str, digests: Mapping[str, str]) -> str:
        """Pushes an index of manifests by platform (`linux/amd64`); returns its digest."""
        manifests = []
        for platform, digest in digests.items():
            system, _, architecture = platform.partition("/")
            size = len(self._send("GET", f"{repository}/manifests/{digest}", b"", {"Accept": MANIFEST})[0])
            manifests.append(
                {
                    "mediaType": MANIFEST,
                    "digest": digest,
                    "size": size,
                    "platform": {"os": system, "architecture": architecture},
                }
            )
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": manifests,
        }
        return self.push_manifest(repository, tag, index)

    def push_manifest(self, repository: str, tag: str, manifest: dict[str, Any]) -> str:
        """Pushes a manifest or an index as it is; returns its digest."""
        body = json.dumps(manifest).encode()
        self._send("PUT", f"{repository}/manifests/{tag}", body, {"Content-Type": manifest["mediaType"]})
        return f"sha256:{hashlib.sha256(body).hexdigest()}"

    def _push_blob(self, repository: str, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        _, headers = self._send("POST", f"{repository}/blobs/uploads/", b"", {})
        place = headers["Location"]
        place = place if place.startswith("http") else f"http://{self.host}{place}"
        self._request("PUT", f"{place}&digest={digest}", data, {"Content-Type": "application/octet-stream"})
        return digest

    def _send(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[bytes, Mapping[str, str]]:
        return self._request(method, f"http://{self.host}/v2/{path}", body, headers)

    def _request(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> tuple[bytes, Mapping[str, str]]:
        request = Request(url, data=body or None, method=method, headers={**self.headers, **headers})
        with urlopen(request, timeout=30) as response:
            return response.read(), dict(response.headers)


@contextmanager
def registry_serving(folder: Path, auth: str = "", port: int | None = None) -> Iterator[RegistryServer]:
    """Runs the registry on a folder; `auth` is that part of its configuration, in YAML."""
    port = port or free_port()
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        f"http: {{addr: 127.0.0.1:{port}, secret: test}}\n{auth}"
    )
    command = [str(tool("registry")), "serve", str(folder / "config.yml")]
    server = Server("registry", folder, command, lambda: answers(port))
    server.start()
    try:
        yield RegistryServer(port)
    finally:
        server.stop(signal.SIGTERM)


@contextmanager
def registry_with_password(folder: Path) -> Iterator[RegistryServer]:
    """A registry that wants a user and a password with every request."""
    (folder / "htpasswd").write_text(f"{USER}:{_BCRYPT}\n")
    with registry_serving(folder, f"auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}\n") as registry:
        registry.headers = {"Authorization": "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
        yield registry


@dataclass
class TokenServer(FileServer):
    """Gives tokens for a registry, signed with a key that the registry knows, to who has the password."""

    folder: Path = Path()
    seconds: int = 300
    """How long a token lasts."""

    def handle(self, exchange: Exchange) -> None:
        """Answers GET /token, and POST /token with a refresh token."""
        query = parse_qs(urlsplit(exchange.seen.target).query)
        if exchange.command == "POST":
            query = parse_qs(exchange.rfile.read(int(exchange.headers["Content-Length"])).decode())
            allowed = query.get("refresh_token") == [PASSWORD]
        else:
            basic = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            allowed = exchange.headers.get("Authorization") == basic
        if not allowed:
            exchange.answer(401)
            return
        kind, name, actions = query["scope"][0].split(":")
        access = [{"type": kind, "name": name, "actions": actions.split(",")}]
        body = json.dumps({"token": self.token(access), "expires_in": self.seconds}).encode()
        exchange.answer(200, {"Content-Type": "application/json"}, body)

    def token(self, access: list[dict[str, Any]]) -> str:
        """A signed token."""
        certificate = "".join((self.folder / "cert.pem").read_text().splitlines()[1:-1])
        now = int(time())
        parts = [
            {"typ": "JWT", "alg": "RS256", "x5c": [certificate]},
            {
                "iss": "tests",
                "aud": "registry",
                "sub": USER,
                "nbf": now - 60,
                "iat": now,
                "exp": now + 600,
                "jti": "1",
                "access": access,
            },
        ]
        text = ".".join(_base64(json.dumps(part).encode()) for part in parts)
        signed = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self.folder / "key.pem"],
            input=text.encode(),
            capture_output=True,
            check=True,
        )
        return f"{text}.{_base64(signed.stdout)}"


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


@contextmanager
def registry_with_tokens(folder: Path) -> Iterator[tuple[RegistryServer, TokenServer]]:
    """A registry that wants tokens, and the server that gives them."""
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=tests",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    with serving(TokenServer(folder=folder)) as tokens:
        auth = (
            f"auth: {{token: {{realm: '{tokens.url}/token', service: registry, issuer: tests, "
            f"rootcertbundle: {folder}/cert.pem}}}}\n"
        )
        with registry_serving(folder, auth) as registry:
            access = [{"type": "repository", "name": "team/model", "actions": ["pull", "push"]}]
            registry.headers = {"Authorization": f"Bearer {tokens.token(access)}"}
            yield registry, tokens
