"""What the fields of an AIService do to the children beside its Deployment."""

from __future__ import annotations

from typing import Any

import pytest

from aiservice_api.v1alpha1 import AIServiceSpec
from aiservice_operator.desired.autoscaler import autoscaler
from aiservice_operator.desired.common import wire
from aiservice_operator.desired.disruption_budget import disruption_budget
from aiservice_operator.desired.network_policy import network_policy
from aiservice_operator.desired.pod_monitor import pod_monitor
from aiservice_operator.kinds import Json
from aiservice_operator.settings import Settings
from support.operator_objects import SETTINGS, service


def parsed(**fields: Any) -> AIServiceSpec:
    spec = service(spec=fields).spec
    assert spec is not None
    return spec


def port(name: str, number: int) -> Json:
    return {"name": f"on-{number}", "image": "x:1", "ports": [{"name": name, "containerPort": number}]}


def test_the_autoscaler_is_there_only_when_asked_for() -> None:
    scaling = {"min": 2, "max": 5}
    assert autoscaler(service().meta, parsed(), scale_down=True) is None
    assert autoscaler(service().meta, parsed(autoscaling=scaling, suspend=True), scale_down=True) is None
    built = autoscaler(service().meta, parsed(autoscaling=scaling), scale_down=True)
    assert built is not None
    body = wire(built)["spec"]
    assert (body["minReplicas"], body["maxReplicas"]) == (2, 5)
    assert body["metrics"][0]["pods"]["target"] == {"type": "AverageValue", "averageValue": "4"}
    assert body["behavior"] == {"scaleDown": {"selectPolicy": "Max"}}


def test_the_autoscaler_takes_nothing_away_while_a_pod_loads() -> None:
    scaling = {"max": 5, "metric": "CPU"}
    built = autoscaler(service().meta, parsed(autoscaling=scaling), scale_down=False)
    assert built is not None
    body = wire(built)["spec"]
    assert body["behavior"] == {"scaleDown": {"selectPolicy": "Disabled"}}
    assert body["metrics"][0]["containerResource"]["target"] == {"type": "Utilization", "averageUtilization": 80}


@pytest.mark.parametrize(
    ("fields", "one_node", "allowed"),
    [
        ({}, False, {"maxUnavailable": 1}),
        ({}, True, {"maxUnavailable": "100%"}),
        ({"disruption": {"maxUnavailable": "25%"}}, False, {"maxUnavailable": "25%"}),
        ({"disruption": {"minAvailable": 2}}, True, {"minAvailable": 2}),
        ({"suspend": True}, True, None),
        ({"replicas": 0}, False, None),
    ],
)
def test_the_disruption_budget(fields: Json, one_node: bool, allowed: Json | None) -> None:
    built = disruption_budget(service().meta, parsed(**fields), one_node=one_node)
    if allowed is None:
        assert built is None
        return
    assert built is not None
    body = wire(built)["spec"]
    assert {name: body[name] for name in ("maxUnavailable", "minAvailable") if name in body} == allowed


def policy(settings: Settings = SETTINGS, **fields: Any) -> Json | None:
    built = network_policy(service().meta, parsed(**fields), settings)
    return wire(built)["spec"] if built is not None else None


def test_no_network_policy_where_nobody_wants_one() -> None:
    assert policy(network={"restrict": False}) is None
    assert policy(Settings.model_validate({"network": {"enabled": False}})) is None


def test_a_network_policy_without_peers_lets_nobody_in() -> None:
    alone = policy(Settings.model_validate({"network": {"allowFrom": []}}))
    assert alone is not None
    assert alone["ingress"] == []
    assert alone["policyTypes"] == ["Ingress"]


def test_peers_of_the_configuration_and_of_the_spec_reach_every_port() -> None:
    settings = Settings.model_validate(
        {"network": {"allowFrom": [{"namespaceLabels": {"a": "b"}, "podLabels": {"app": "gateway"}}]}}
    )
    built = policy(
        settings,
        network={"allowFrom": [{"podSelector": {"matchLabels": {"app": "client"}}}, {"namespaceSelector": {}}]},
        pod={"sidecars": [port("metrics", 9100)]},
    )
    assert built is not None
    assert built["ingress"] == [
        {
            "from": [
                {
                    "namespaceSelector": {"matchLabels": {"a": "b"}},
                    "podSelector": {"matchLabels": {"app": "gateway"}},
                },
                {"podSelector": {"matchLabels": {"app": "client"}}},
                {"namespaceSelector": {}},
            ],
            "ports": [{"port": 7862, "protocol": "TCP"}, {"port": 9100, "protocol": "TCP"}],
        }
    ]


def test_no_pod_monitor_where_monitoring_is_off() -> None:
    off = Settings.model_validate({"monitoring": {"enabled": False}})
    assert pod_monitor(service().meta, parsed(), off) is None
