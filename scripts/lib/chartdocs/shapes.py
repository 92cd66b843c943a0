"""JSON schemas that several values share, named by `# @schema shape: NAME` in a `values.yaml`."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

_TASKS = ("text-to-image", "text-to-speech", "speech-to-text", "image-to-image", "image-to-text")
_ENGINES = ("diffusion", "speech-synthesis", "speech-recognition", "vision")

_STRING: Json = {"type": "string"}
_NAME: Json = {"type": "string", "minLength": 1}
_QUANTITY: Json = {"type": ["string", "number"], "pattern": "^[0-9]+(\\.[0-9]+)?([EPTGMk]i?|[mun]|Ki)?$"}
_QUOTED_QUANTITY: Json = {**_QUANTITY, "type": "string"}

# Without user and password: everybody who may read Jobs would see them.
_PROXY: Json = {"type": "string", "pattern": "^https?://(\\[[0-9a-fA-F:.]+\\]|[A-Za-z0-9._-]+)(:[0-9]+)?/?$"}


def _closed(properties: Json, *required: str) -> Json:
    """An object with these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        **({"required": list(required)} if required else {}),
    }


def _map_of(values: Json) -> Json:
    """An object with keys of the user's choice."""
    return {"type": "object", "additionalProperties": values}


def _list_of(items: Json) -> Json:
    return {"type": "array", "items": items}


def _resources(quantity: Json) -> Json:
    return _closed({"requests": _map_of(quantity), "limits": _map_of(quantity)})


_IMAGE = _closed({"registry": _STRING, "repository": _NAME, "tag": _STRING}, "repository")

_TOLERATION = _closed(
    {
        "key": _STRING,
        "operator": {"enum": ["Exists", "Equal"]},
        "value": _STRING,
        "effect": {"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
        "tolerationSeconds": {"type": "integer", "minimum": 0},
    }
)

_PROFILE = _closed(
    {
        "gpu": _closed(
            {
                "resource": _NAME,
                "count": {"type": "integer", "minimum": 1},
                "memoryGiB": {"type": "number", "exclusiveMinimum": 0},
            }
        ),
        "resources": _resources(_QUOTED_QUANTITY),
        "nodeSelector": _map_of(_STRING),
        "tolerations": _list_of(_TOLERATION),
        "runtimeClassName": _STRING,
        "priorityClassName": _STRING,
        "price": _closed(
            {
                "hourly": {"type": "number", "minimum": 0},
                "currency": {"type": "string", "minLength": 1, "maxLength": 8},
            },
            "hourly",
        ),
    }
)

SHAPES: dict[str, Json] = {
    "strings": _map_of(_STRING),
    "objects": _list_of({"type": "object"}),
    "quantity": _QUANTITY,
    "resources": _resources(_QUANTITY),
    "quotedResources": _resources(_QUOTED_QUANTITY),
    "tolerations": _list_of(_TOLERATION),
    "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "image": _IMAGE,
    "engineImages": _closed(dict.fromkeys(_ENGINES, _IMAGE)),
    "nameList": _list_of(_closed({"name": _NAME}, "name")),
    "env": _list_of({"type": "object", "properties": {"name": _NAME}, "required": ["name"]}),
    # Other variables would change where files go, or what is checked.
    "downloadEnv": _closed(
        {"HTTP_PROXY": _PROXY, "HTTPS_PROXY": _PROXY, "NO_PROXY": _STRING, "HF_HUB_DISABLE_XET": _STRING}
    ),
    # Keys have the bounds of spec.profile of an AIService.
    "profiles": {
        "type": "object",
        "patternProperties": {"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$": _PROFILE},
        "additionalProperties": False,
    },
    # An entry without labels of pods would let everything in.
    "peers": _list_of(
        _closed(
            {"podLabels": {**_map_of(_STRING), "minProperties": 1}, "namespaceLabels": _map_of(_STRING)}, "podLabels"
        )
    ),
    "prices": _closed({task: {"type": "number", "minimum": 0} for task in _TASKS}),
    "units": _closed({task: {"type": "number", "minimum": 0, "maximum": 1_000_000} for task in _TASKS}),
    "ingressTls": _list_of(_closed({"hosts": _list_of(_NAME), "secretName": _STRING})),
}
