"""Keeps what a namespace holds of one kind, by list and watch, in a thread of its own."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.kube_api import ApiError, KubeApi

Seen = Callable[[str, Any], None]
"""Takes ADDED, MODIFIED or DELETED, and the object; called in the watcher's thread."""
_PAUSE_SECONDS = 0.1


class Watcher:
    """Tells of every change, however the connection fares: after a break it lists again and tells the difference.

    Args:
        kubeconfig: Which cluster, and as whom.
        namespace: Where it looks; empty: everywhere.
        kind: What it looks at.
        seen: Told of each object.
    """

    def __init__(self, kubeconfig: Path, namespace: str, kind: str, seen: Seen) -> None:
        self._api = KubeApi(kubeconfig, namespace)
        self._kind = kind
        self._seen = seen
        self._known: dict[str, Any] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch-{kind}-{namespace}", daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._api.interrupt()
        self._thread.join(timeout=30)
        self._api.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(ApiError, OSError, http.client.HTTPException, ValueError):
                self._follow(self._list())
            self._stop.wait(_PAUSE_SECONDS)

    def _list(self) -> str:
        listing = self._api.request("GET", self._api.path(self._kind))
        found = {item["metadata"]["uid"]: item for item in listing["items"]}
        for uid in self._known.keys() - found.keys():
            self._tell("DELETED", self._known[uid])
        for item in found.values():
            self._tell("ADDED", item)
        return str(listing["metadata"]["resourceVersion"])

    def _follow(self, version: str) -> None:
        for event in self._api.watch(self._kind, version):
            if event["type"] == "ERROR":  # the version is too old
                return
            self._tell(event["type"], event["object"])

    def _tell(self, change: str, body: Any) -> None:
        uid = body["metadata"]["uid"]
        if change == "DELETED":
            self._known.pop(uid, None)
        else:
            self._known[uid] = body
        self._seen(change, body)
