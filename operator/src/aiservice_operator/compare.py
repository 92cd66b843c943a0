"""Whether a live object has everything that is wanted of it.

What the API server adds (defaults) and what others own (labels, sidecars) is no difference: only what is wanted and is
missing or other. Lists are compared as server-side apply merges them.
"""

from __future__ import annotations

from typing import Any

from aiservice_operator.kinds import Json
from aiservice_operator.quantities import same

_Identity = tuple[Any, ...]

_LIST_KEYS: dict[str, tuple[tuple[str, ...], ...]] = {
    "claims": (("name",),),
    "containers": (("name",),),
    "env": (("name",),),
    "imagePullSecrets": (("name",),),
    "ownerReferences": (("uid",),),
    "ports": (("containerPort", "protocol"), ("port", "protocol")),
    "resourceClaims": (("name",),),
    "topologySpreadConstraints": (("topologyKey", "whenUnsatisfiable"),),
    "volumeMounts": (("mountPath",),),
    "volumes": (("name",),),
}
"""Lists that are merged by fields of their items, of which the first alternative counts whose first field an item has.
All others are one value, and so is everything in them (the ports of a NetworkPolicy's rule); save for sets."""
_DEFAULTS = {"protocol": "TCP"}
"""Keys that the API server fills in."""
_SETS = frozenset({"finalizers"})
_WHOLE_MAPS = frozenset({"matchLabels", "nodeSelector", "selector"})
"""Maps that have one owner as a whole."""
_QUANTITY_MAPS = frozenset({"limits", "requests"})
_QUANTITIES = frozenset({"averageValue", "sizeLimit"})


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
    ours = {_identity(field, item): item for item in wanted}
    present = {_identity(field, item) for item in live}
    missing = {item["name"]: item for key, item in ours.items() if "name" in item and key not in present}
    return [
        _ousted(ours[key], item, "") if (key := _identity(field, item)) in ours else missing.get(item.get("name"), item)
        for item in live
    ]


def _identity(field: str, item: Json) -> _Identity:
    alternatives = _LIST_KEYS[field]
    keys = next((keys for keys in alternatives if keys[0] in item), alternatives[0])
    return tuple(item.get(key, _DEFAULTS.get(key)) for key in keys)


def _value(wanted: Any, live: Any, path: str, field: str, *, whole: bool = False) -> str | None:
    if isinstance(wanted, dict):
        live = {} if live is None else live
        if not isinstance(live, dict) or (field in _WHOLE_MAPS and set(wanted) != set(live)):
            return path
        return _map(wanted, live, path, whole=whole)
    if isinstance(wanted, list):
        return _list(wanted, live if isinstance(live, list) else [], path, field, whole=whole)
    # The API server leaves empty strings out.
    equal = same(wanted, live) if field in _QUANTITIES else wanted == ("" if wanted == "" and live is None else live)
    return None if equal else path


def _map(wanted: Json, live: Json, path: str, *, whole: bool = False) -> str | None:
    quantities = path.rpartition(".")[2] in _QUANTITY_MAPS
    for field, value in wanted.items():
        where = f"{path}.{field}" if path else field
        if quantities:
            if field not in live or not same(value, live[field]):
                return where
        elif (different := _value(value, live.get(field), where, field, whole=whole)) is not None:
            return different
    return None


def _list(wanted: list[Any], live: list[Any], path: str, field: str, *, whole: bool) -> str | None:
    """Compares two lists. `whole`: they are part of a list that is one value."""
    if field in _SETS:
        return path if set(wanted) - set(live) else None
    merged = field in _LIST_KEYS and not whole
    if merged:
        by_key = {_identity(field, item): item for item in live}
        pairs = [(item, by_key.get(_identity(field, item))) for item in wanted]
    elif len(wanted) != len(live):
        return path
    else:
        pairs = list(zip(wanted, live, strict=True))
    for index, (one, other) in enumerate(pairs):
        if (different := _value(one, other, f"{path}[{index}]", "", whole=not merged)) is not None:
            return different
    return None
