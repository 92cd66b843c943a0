"""A small Hugging Face Hub on the loopback device: the part of its API that `huggingface_hub` uses to fetch a model.

    GET  /api/models/<repo>/revision/<revision>[?blobs=true]    the commit, the files, their sizes and digests
    HEAD, GET  /<repo>/resolve/<revision>/<file>                a file; large ones redirect to /cdn/<sha256>

Standard library only, so that every environment can use it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from support.file_server import Exchange, FileServer


def git_blob_name(content: bytes) -> str:
    """The name that Git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass
class Repository:
    """A repository: the files of each commit, and which commit each branch or tag names."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    """If set, only requests with this token see the repository."""

    def commit(self, files: dict[str, bytes], *, branch: str = "main") -> str:
        """Adds a commit and moves the branch to it; returns its name."""
        text = json.dumps({path: git_blob_name(content) for path, content in files.items()}, sort_keys=True)
        name = hashlib.sha1(f"{len(self.commits)} {text}".encode(), usedforsecurity=False).hexdigest()
        self.commits[name] = files
        self.names[branch] = name
        return name

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, a tag or a commit names."""
        return self.names.get(revision) or (revision if revision in self.commits else None)


@dataclass
class HubServer(FileServer):
    """A Hub. What it sends for a file is in `files` (at /cdn/... for large ones) and may differ from what it lists."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    large_from: int = 1 << 10
    """Files of at least so many bytes are kept as large files, outside of Git."""
    list_digests: bool = True
    """Whether the list of files has sizes and digests. Some mirrors leave them out."""

    after_listing: Callable[[], object] = lambda: None
    """Called when a list of files was sent, so that what is sent for them can be made to differ."""

    def repository(self, name: str, *, token: str | None = None) -> Repository:
        """Adds an empty repository, which only requests with the token see if there is one."""
        self.repositories[name] = Repository(token=token)
        return self.repositories[name]

    def handle(self, exchange: Exchange) -> None:
        """Answers a request of the Hub's API, or for a file's content."""
        parts = unquote(exchange.seen.path).strip("/").split("/")
        if parts[:2] == ["api", "models"] and len(parts) == 6 and parts[4] == "revision":
            self._info(exchange, "/".join(parts[2:4]), parts[5])
        elif len(parts) >= 5 and parts[2] == "resolve":
            self._file(exchange, "/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        elif parts[0] == "cdn" and len(parts) == 2:
            self._large_file(exchange, parts[1])
        else:
            super().handle(exchange)

    def _repository(self, exchange: Exchange, name: str) -> Repository | None:
        """The repository, if it exists and the request may see it; else the request is answered as the Hub does."""
        found = self.repositories.get(name)
        authorization = exchange.headers.get("Authorization")
        if found is not None and found.token in {None, (authorization or "").removeprefix("Bearer ")}:
            return found
        if authorization is None:
            exchange.answer(401, {"X-Error-Message": "Invalid username or password."})
        elif found is None:
            exchange.answer(404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        else:
            exchange.answer(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
        return None

    def _info(self, exchange: Exchange, name: str, revision: str) -> None:
        repository = self._repository(exchange, name)
        if repository is None:
            return
        commit = repository.resolve(revision)
        if commit is None:
            exchange.answer(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
            return
        blobs = "blobs" in parse_qs(urlsplit(exchange.seen.target).query) and self.list_digests
        siblings = [self._sibling(path, body, blobs) for path, body in repository.commits[commit].items()]
        body = json.dumps({"id": name, "modelId": name, "sha": commit, "siblings": siblings}).encode()
        exchange.answer(200, {"Content-Type": "application/json"}, body)
        self.after_listing()

    def _sibling(self, path: str, content: bytes, blobs: bool) -> dict[str, object]:
        if not blobs:
            return {"rfilename": path}
        listed: dict[str, object] = {"rfilename": path, "size": len(content), "blobId": git_blob_name(content)}
        if len(content) >= self.large_from:
            digest = hashlib.sha256(content).hexdigest()
            listed["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
        return listed

    def _file(self, exchange: Exchange, name: str, revision: str, path: str) -> None:
        repository = self._repository(exchange, name)
        if repository is None:
            return
        commit = repository.resolve(revision) or ""
        content = repository.commits.get(commit, {}).get(path)
        if content is None:
            exchange.answer(404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
            return
        headers = {"X-Repo-Commit": commit}
        if len(content) < self.large_from:
            exchange.send_file(content, etag=f'"{git_blob_name(content)}"', headers=headers)
            return
        digest = hashlib.sha256(content).hexdigest()
        self.files.setdefault(f"/cdn/{digest}", content)
        linked = {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{digest}"'}
        exchange.answer(302, {**headers, **linked, "Location": f"{self.cdn_url}/cdn/{digest}"})

    @property
    def cdn_url(self) -> str:
        """Where large files are: another origin than the Hub's, as in life."""
        return f"http://localhost:{self.port}"

    def _large_file(self, exchange: Exchange, digest: str) -> None:
        if exchange.headers.get("Authorization") is not None:
            exchange.answer(400)  # a signed address refuses other credentials, and must never be sent them
            return
        exchange.send_file(self.files[f"/cdn/{digest}"], etag=f'"{digest}"')
