"""The Secrets and ConfigMaps that pods take values from: hashes of what they hold, so that pods follow a change.

They are read one by one, by name, and never listed or watched: the operator needs no more rights than that, and keeps
no value, only hashes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from aiservice_api.v1alpha1 import AIServiceSpec, EnvVar
from aiservice_operator import names
from aiservice_operator.errors import RefusedError
from aiservice_operator.kinds import Json
from aiservice_operator.kube import Kube

log = logging.getLogger(__name__)

Source = Literal["Secret", "ConfigMap"]
_PLURALS: Mapping[Source, str] = {"Secret": "secrets", "ConfigMap": "configmaps"}
_FRESH_SECONDS = 30.0
LOOK_SECONDS = 60.0
"""How often the objects that a service names are looked at again."""
_KEPT = 1024
"""How many objects are remembered before the old ones are dropped."""


@dataclass(frozen=True, slots=True)
class _Seen:
    until: float
    hashes: Mapping[str, str] | None
    """Of the values, by key; None: the object is not there, or may not be read."""


class References:
    """Hashes of Secrets and ConfigMaps.

    Args:
        kube: The API server.
        enabled: Whether anything is read at all.
        clock: Seconds that only grow.
    """

    def __init__(self, kube: Kube, *, enabled: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._enabled = enabled
        self._clock = clock
        self._known: dict[tuple[str, Source, str], _Seen] = {}
        self._refused: set[tuple[str, Source]] = set()

    async def digest(self, namespace: str, kind: Source, name: str, keys: Sequence[str] | None) -> str:
        """Returns 16 hex digits over the values of some keys (None: of all) of one object.

        Empty where the object or a key is missing, or the operator may not read it.

        Raises:
            KubeError: something failed that another try may mend.
        """
        if not self._enabled:
            return ""
        seen = await self._look(namespace, kind, name)
        chosen = _choose(seen.hashes, keys)
        return names.digest(chosen) if chosen is not None else ""

    async def of_service(self, namespace: str, spec: AIServiceSpec) -> str | None:
        """Returns the hash of everything that the pods of a service take from Secrets and ConfigMaps.

        Empty where that is nothing. None where it cannot be told: something of it is missing just now, or may not be
        read. Pods that run go on with what they were given, and those that start say what they miss.

        Raises:
            KubeError: something failed that another try may mend.
        """
        sources, found = named(spec), dict[str, str]()
        if sources and not self._enabled:
            return None
        for (kind, name), keys in sources.items():
            chosen = _choose((await self._look(namespace, kind, name)).hashes, keys)
            if chosen is None:
                return None
            found[f"{kind}/{name}"] = names.digest(chosen)
        return names.digest(found) if found else ""

    async def _look(self, namespace: str, kind: Source, name: str) -> _Seen:
        identity, now = (namespace, kind, name), self._clock()
        known = self._known.get(identity)
        if known is not None and now < known.until:
            return known
        self._known[identity] = seen = await self._read(namespace, kind, name, now + _FRESH_SECONDS)
        if len(self._known) > _KEPT:
            self._known = {key: value for key, value in self._known.items() if now < value.until}
        return seen

    async def _read(self, namespace: str, kind: Source, name: str, until: float) -> _Seen:
        try:
            body = await self._kube.find(f"/api/v1/namespaces/{namespace}/{_PLURALS[kind]}/{name}")
        except RefusedError as error:
            if (namespace, kind) not in self._refused:
                self._refused.add((namespace, kind))
                log.warning(
                    "pods in %s do not follow changes of %ss, which the operator may not read: give it the right to "
                    "get them, or set rollOnConfigChange to false: %s",
                    namespace,
                    kind,
                    error.message,
                )
            return _Seen(until, None)
        return _Seen(until, _hashes(body) if body is not None else None)


def _hashes(body: Json) -> dict[str, str]:
    values = {**(body.get("data") or {}), **(body.get("binaryData") or {})}
    return {key: names.digest(value, 64) for key, value in values.items()}


def _choose(hashes: Mapping[str, str] | None, keys: Iterable[str] | None) -> dict[str, str] | None:
    """The hashes of the keys that count; None where one of them, or everything, is missing."""
    if hashes is None:
        return None
    if keys is None:
        return dict(hashes)
    wanted = set(keys)
    return {key: hashes[key] for key in wanted} if wanted <= hashes.keys() else None


def named(spec: AIServiceSpec) -> dict[tuple[Source, str], frozenset[str] | None]:
    """Returns the objects that the pods of a service take values from, and which of their keys; None: all."""
    found: dict[tuple[Source, str], frozenset[str] | None] = {}

    def add(kind: Source, name: str, keys: frozenset[str] | None) -> None:
        known = found.get((kind, name), frozenset())
        found[kind, name] = None if keys is None or known is None else known | keys

    pod = spec.pod
    for variable in (*spec.engine.env, *(item for sidecar in (pod.sidecars if pod else ()) for item in sidecar.env)):
        for kind, name, key in _of_variable(variable):
            add(kind, name, frozenset({key}))
    for volume in pod.volumes if pod else ():
        if volume.secret is not None:
            add("Secret", volume.secret.secret_name, _keys(item.key for item in volume.secret.items))
        if volume.config_map is not None:
            add("ConfigMap", volume.config_map.name, _keys(item.key for item in volume.config_map.items))
    return found


def _of_variable(variable: EnvVar) -> Iterable[tuple[Source, str, str]]:
    source = variable.value_from
    if source is not None and source.secret_key_ref is not None:
        yield "Secret", source.secret_key_ref.name, source.secret_key_ref.key
    if source is not None and source.config_map_key_ref is not None:
        yield "ConfigMap", source.config_map_key_ref.name, source.config_map_key_ref.key


def _keys(stated: Iterable[str]) -> frozenset[str] | None:
    return frozenset(stated) or None
