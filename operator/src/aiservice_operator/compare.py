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


def ousted(wanted: Json, live: Json) -> Json | None:
    """Returns `live` with the rivals of our list items replaced by ours; None where there are none.

    A rival has the name of one of ours under another key: what is left when someone edits the key, such as the number
    of a port. Server-side apply would put ours beside it, and two of one name are refused.
    """
    mended = _ousted(wanted, live, "")
    return None if mended == live else mended


def _ousted(wanted: Any, live: Any, field: str) -> Any:
    if isinstance(wanted, dict) and isinstance(live, dict):
        return {**live, **{name: _ousted(value, live[name], name) for name, value in wanted.items() if name in live}}
    if not isinstance(wanted, list) or not isinstance(live, list) or field not in _LIST_KEYS:
        return live
    key = _key(field, wanted)
    ours = {item[key]: item for item in wanted}
    missing = {item["name"]: item for item in wanted if "name" in item and not any(item[key] == o[key] for o in live)}
    return [
        _ousted(ours[item[key]], item, "") if item[key] in ours else missing.get(item.get("name", ""), item)
        for item in live
    ]


def _key(field: str, wanted: list[Any]) -> str:
    keys = _LIST_KEYS[field]
    return next((key for key in keys if wanted and key in wanted[0]), keys[0])


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
    if field not in _LIST_KEYS:
        if len(wanted) != len(live):
            return path
        pairs = zip(wanted, live, strict=True)
    else:
        key = _key(field, wanted)
        by_key = {item.get(key): item for item in live}
        pairs = zip(wanted, (by_key.get(item[key]) for item in wanted), strict=True)
    for index, (one, other) in enumerate(pairs):
        if (different := _value(one, other, f"{path}[{index}]", "")) is not None:
            return different
    return None
