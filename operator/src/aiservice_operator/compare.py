"""Whether a live object has everything that is wanted of it.

What the API server adds (defaults) and what others own (labels, sidecars) is no difference: only what is wanted and is
missing or other. Lists are compared as server-side apply merges them.
"""

from __future__ import annotations

from typing import Any

from aiservice_operator.kinds import Json
from aiservice_operator.quantities import same

_LIST_KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "ownerReferences": ("uid",),
    "ports": ("containerPort", "port"),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
"""Lists that are merged by a field of their items; all others are one value, save for sets."""
_SETS = frozenset({"finalizers"})
_WHOLE_MAPS = frozenset({"matchLabels", "nodeSelector", "selector"})
"""Maps that have one owner as a whole."""
_QUANTITY_MAPS = frozenset({"limits", "requests"})
_QUANTITIES = frozenset({"sizeLimit"})


def differs(wanted: Json, live: Json) -> str | None:
    """Returns the path of the first field of `wanted` that `live` lacks or has otherwise; None where there is none."""
    return _map(wanted, live, "")


def _value(wanted: Any, live: Any, path: str, field: str) -> str | None:
    if isinstance(wanted, dict):
        live = {} if live is None else live
        if not isinstance(live, dict) or (field in _WHOLE_MAPS and set(wanted) != set(live)):
            return path
        return _map(wanted, live, path)
    if isinstance(wanted, list):
        return _list(wanted, live if isinstance(live, list) else [], path, field)
    # The API server leaves empty strings out.
    equal = same(wanted, live) if field in _QUANTITIES else wanted == ("" if wanted == "" and live is None else live)
    return None if equal else path


def _map(wanted: Json, live: Json, path: str) -> str | None:
    quantities = path.rpartition(".")[2] in _QUANTITY_MAPS
    for field, value in wanted.items():
        where = f"{path}.{field}" if path else field
        if quantities:
            if field not in live or not same(value, live[field]):
                return where
        elif (different := _value(value, live.get(field), where, field)) is not None:
            return different
    return None


def _list(wanted: list[Any], live: list[Any], path: str, field: str) -> str | None:
    if field in _SETS:
        return path if set(wanted) - set(live) else None
    keys = _LIST_KEYS.get(field)
    if keys is None:
        if len(wanted) != len(live):
            return path
        pairs = zip(wanted, live, strict=True)
    else:
        key = next((key for key in keys if wanted and key in wanted[0]), keys[0])
        by_key = {item.get(key): item for item in live}
        pairs = zip(wanted, (by_key.get(item[key]) for item in wanted), strict=True)
    for index, (one, other) in enumerate(pairs):
        if (different := _value(one, other, f"{path}[{index}]", "")) is not None:
            return different
    return None
