"""Bad engines and pod overrides."""

from __future__ import annotations

from typing import Any

from support.bad_manifests.cases import ELSEWHERE, Case, bad, hub, service_with, service_with_pod
from support.manifests import ABSENT, Manifest


def engine(**fields: Any) -> Manifest:
    return service_with(engine=fields)


def variable(**fields: Any) -> Manifest:
    return engine(env=[fields])


def toleration(**fields: Any) -> Manifest:
    return service_with_pod(tolerations=[fields])


def node(**term: Any) -> Manifest:
    required = {"nodeSelectorTerms": [term]}
    return service_with_pod(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}})


def near(**term: Any) -> Manifest:
    required = [{"topologyKey": "kubernetes.io/hostname", **term}]
    return service_with_pod(affinity={"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}})


def node_label(**requirement: Any) -> Manifest:
    return node(matchExpressions=[requirement])


def pod_label(**requirement: Any) -> Manifest:
    return near(labelSelector={"matchExpressions": [requirement]})


def spread(**fields: Any) -> dict[str, Any]:
    return {"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", **fields}


def volume(**fields: Any) -> Manifest:
    return service_with_pod(volumes=[{"name": "v", **fields}])


def mount(**fields: Any) -> Manifest:
    return service_with_pod(
        volumes=[{"name": "v", "emptyDir": {}}], volumeMounts=[{"name": "v", "mountPath": "/v", **fields}]
    )


def sidecar(**fields: Any) -> Manifest:
    return service_with_pod(sidecars=[{"name": "proxy", "image": "registry.example.com/proxy:1", **fields}])


_KEY = {**ELSEWHERE, "key": "token"}
_IMAGE = "write the image as REGISTRY/NAME:TAG or REGISTRY/NAME@DIGEST, without https:// and blanks"
_HTTP_PATH = "write a path that starts with / and has no blank, ? or #, for example /ready"
_LABEL_VALUE = "write the value of a label: letters, digits, dashes, underscores and dots, with a letter or digit at"
_LABEL_KEY = "write the key of a label, with or without a domain before a slash, for example kubernetes.io/hostname"
_MAP_KEY = (
    "a key is not one that Kubernetes takes: write up to 63 letters, digits, dashes, underscores and dots, with or "
    "without a domain before a slash, for example example.com/team"
)
_RESERVED_PATH = "/models, /tmp and /dev/shm, and what is below them, are the operator's: mount it elsewhere"
_MOUNT_PATH = (
    "mountPath names a folder or file from the root on, such as /etc/engine: write it without '.', '..', colons and a "
    "slash at the end"
)

_ENGINE = (
    bad("engine-image-as-address", engine(image="https://registry.example.com/engine:1"), "spec.engine.image", _IMAGE),
    bad("image-of-no-name", engine(image=""), _IMAGE),
    bad("ready-path-relative", engine(readyPath="ready"), "spec.engine.readyPath", _HTTP_PATH),
    bad("ready-path-with-blank", engine(readyPath="/is ready"), _HTTP_PATH),
    bad("health-path-with-query", engine(healthPath="/health?full=1"), "spec.engine.healthPath", _HTTP_PATH),
    bad(
        "variable-name-bad",
        variable(name="MY VAR", value="1"),
        "write a name of letters, digits, underscores, dots and dashes that does not start with a digit, for example "
        "LOG_LEVEL",
    ),
    bad(
        "variable-of-the-operator",
        variable(name="AISERVICE_DEVICE", value="cuda"),
        "AISERVICE_DEVICE is set by the operator, as is every name that starts with AISERVICE_: use the field of the "
        "AIService, or engine.args, instead",
    ),
    bad(
        "variable-with-two-values",
        variable(name="A", value="1", valueFrom={"secretKeyRef": {"name": "s", "key": "k"}}),
        "set value or valueFrom, not both",
    ),
    bad(
        "variable-from-nowhere",
        variable(name="A", valueFrom={}),
        "set exactly one of secretKeyRef and configMapKeyRef; set here: none",
    ),
    bad(
        "variable-from-two-places",
        variable(name="A", valueFrom={of: {"name": "s", "key": "k"} for of in ("secretKeyRef", "configMapKeyRef")}),
        "set here: secretKeyRef configMapKeyRef",
    ),
    bad("variable-twice", engine(env=[{"name": "A", "value": "1"}, {"name": "A"}]), 'Duplicate value: {"name":"A"}'),
)

_PLACEMENT = (
    bad(
        "toleration-of-a-value-that-exists",
        toleration(key="gpu", operator="Exists", value="a"),
        "a toleration with operator Exists has no value: remove value, or set operator to Equal",
    ),
    bad(
        "toleration-of-no-key",
        toleration(value="a"),
        "a toleration without key needs operator Exists; it then tolerates every taint",
    ),
    bad(
        "toleration-for-a-time",
        toleration(key="gpu", effect="NoSchedule", tolerationSeconds=60),
        "tolerationSeconds is for effect NoExecute: set effect to NoExecute, or remove tolerationSeconds",
    ),
    bad("node-selector-key", service_with_pod(nodeSelector={"a/b/c": "x"}), "spec.pod.nodeSelector", _MAP_KEY),
    bad("node-selector-value", service_with_pod(nodeSelector={"zone": "a b"}), "spec.pod.nodeSelector", _LABEL_VALUE),
    bad(
        "no-terms",
        service_with_pod(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}),
        "nodeSelectorTerms: Required value",
    ),
    bad(
        "term-of-nothing",
        node(matchExpressions=[]),
        "a term without conditions matches no node: add matchExpressions or matchFields, or remove it",
    ),
    *(
        bad(f"{where}-{case}", manifest, sentence)
        for where, of in [
            ("nodes", node_label),
            ("pods", pod_label),
        ]
        for case, manifest, sentence in [
            (
                "in-nothing",
                of(key="zone", operator="In"),
                "the operators In and NotIn compare with values: add values",
            ),
            (
                "exist-with-values",
                of(key="zone", operator="Exists", values=["a"]),
                "the operators Exists and DoesNotExist take no values: remove values",
            ),
            ("key-bad", of(key="-zone", operator="Exists"), _LABEL_KEY),
        ]
    ),
    *(
        bad(
            f"nodes-above-{case}",
            node(matchExpressions=[{"key": "cores", "operator": "Gt", "values": values}]),
            "the operators Gt and Lt compare with one whole number: write it as the only one of values",
        )
        for case, values in [("nothing", []), ("two-numbers", ["1", "2"]), ("a-word", ["many"])]
    ),
    bad(
        "field-of-a-node-unknown",
        node(matchFields=[{"key": "spec.unschedulable", "operator": "In", "values": ["a"]}]),
        'supported values: "metadata.name"',
    ),
    bad(
        "two-names-of-a-node",
        node(matchFields=[{"key": "metadata.name", "operator": "In", "values": ["a", "b"]}]),
        "must have at most 1 item",
    ),
    bad("near-without-place", near(topologyKey=""), _LABEL_KEY),
    bad(
        "spread-twice",
        service_with_pod(topologySpreadConstraints=[spread(), spread(maxSkew=2)]),
        'Duplicate value: {"topologyKey":"zone","whenUnsatisfiable":"DoNotSchedule"}',
    ),
    bad("spread-without-skew", service_with_pod(topologySpreadConstraints=[spread(maxSkew=0)]), "equal to 1"),
)

_METADATA = (
    *(
        bad(
            f"{what}-of-the-operator-{index}",
            service_with_pod(**{what: {key: "x"}}),
            f"{what} below aiservice.dev/ and app.kubernetes.io/ are the operator's: use another domain",
        )
        for what in ("labels", "annotations")
        for index, key in enumerate(["aiservice.dev/service", "app.kubernetes.io/name"])
    ),
    bad("label-key-bad", service_with_pod(labels={"my team": "x"}), "spec.pod.labels", _MAP_KEY),
    bad("label-value-bad", service_with_pod(labels={"team": "a/b"}), "spec.pod.labels[team]", _LABEL_VALUE),
    bad("annotation-key-bad", service_with_pod(annotations={"": "x"}), "spec.pod.annotations", _MAP_KEY),
    bad(
        "annotation-of-apparmor",
        service_with_pod(annotations={"container.apparmor.security.beta.kubernetes.io/engine": "unconfined"}),
        "annotations of AppArmor would change what the pods are allowed: remove them",
    ),
    bad(
        "privilege", service_with_pod(securityContext={"privileged": True}), 'unknown field "spec.pod.securityContext"'
    ),
    bad("account", service_with_pod(serviceAccountName="root"), 'unknown field "spec.pod.serviceAccountName"'),
)

_VOLUMES = (
    bad(
        "volume-of-nothing",
        volume(),
        "set exactly one of configMap, secret, emptyDir and persistentVolumeClaim; set here: none",
    ),
    bad("volume-of-two", volume(emptyDir={}, configMap={"name": "c"}), "set here: configMap emptyDir"),
    bad("volume-of-the-host", volume(hostPath={"path": "/"}), 'unknown field "spec.pod.volumes[0].hostPath"'),
    *(
        bad(
            f"volume-{name}",
            volume(name=name, emptyDir={}),
            "the volumes model, tmp and shm are the operator's: choose another name",
        )
        for name in ("model", "tmp", "shm")
    ),
    bad(
        "item-outside",
        volume(configMap={"name": "c", "items": [{"key": "a", "path": "../a"}]}),
        "path must stay in the volume: write it relative, without '.', '..' or empty parts",
    ),
    bad("folder-of-bytes", volume(emptyDir={"sizeLimit": 1}), "write the memory with its unit"),
    bad(
        "mount-of-nothing",
        service_with_pod(volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        "volumeMounts names a volume that is not there: add it to volumes",
    ),
    *(
        bad(f"mount-on-{case}", mount(mountPath=path), _RESERVED_PATH)
        for case, path in [("models", "/models"), ("below-models", "/models/voices"), ("memory", "/dev/shm/x")]
    ),
    *(
        bad(f"mount-path-{case}", mount(mountPath=path), _MOUNT_PATH)
        for case, path in [
            ("relative", "voices"),
            ("root", "/"),
            ("colon", "/a:b"),
            ("up", "/a/../models"),
            ("slash-last", "/models/"),
        ]
    ),
    bad(
        "mount-outside",
        mount(subPath="../other"),
        "subPath must stay in the volume: write it relative, without '.', '..' or empty parts",
    ),
)

_SIDECARS = (
    bad(
        "sidecar-engine",
        sidecar(name="engine"),
        "the container engine is the operator's: choose another name",
    ),
    bad("sidecar-without-image", sidecar(image=""), "spec.pod.sidecars[0].image", _IMAGE),
    bad("sidecar-privileged", sidecar(securityContext={}), 'unknown field "spec.pod.sidecars[0].securityContext"'),
    bad(
        "sidecar-mount-of-nothing",
        sidecar(volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        "a sidecar mounts a volume that is not there: add it to volumes",
    ),
    *(
        bad(
            f"sidecar-port-{name}",
            sidecar(ports=[{"name": name, "containerPort": 9100}]),
            "write lower-case letters, digits and single dashes, with a letter among them, for example metrics",
        )
        for name in ("9100", "a--b", "HTTP", "")
    ),
    bad(
        "sidecar-port-named-as-a-task",
        sidecar(ports=[{"name": "text-to-image", "containerPort": 9100}]),
        "the ports of the engine have the names of the tasks: choose another name",
    ),
    bad(
        "sidecar-port-of-the-engine",
        sidecar(ports=[{"name": "metrics", "containerPort": 7862}]),
        "ports 7860 to 7864 are the engine's, which shares the pod's address: choose another port",
    ),
    bad(
        "sidecar-port-twice",
        sidecar(ports=[{"name": "metrics", "containerPort": port} for port in (9100, 9101)]),
        'Duplicate value: {"name":"metrics"}',
    ),
)

_NAMESPACES = tuple(
    bad(f"{case}-of-another-namespace", manifest, f'unknown field "spec.{path}.namespace"')
    for case, manifest, path in (
        ("model-token", service_with(model=hub(tokenSecretRef=ELSEWHERE)["spec"]), "model.huggingFace.tokenSecretRef"),
        ("secret", variable(name="A", valueFrom={"secretKeyRef": _KEY}), "engine.env[0].valueFrom.secretKeyRef"),
        ("config", variable(name="A", valueFrom={"configMapKeyRef": _KEY}), "engine.env[0].valueFrom.configMapKeyRef"),
        (
            "secret-of-a-sidecar",
            sidecar(env=[{"name": "A", "valueFrom": {"secretKeyRef": _KEY}}]),
            "pod.sidecars[0].env[0].valueFrom.secretKeyRef",
        ),
        (
            "secret-to-mount",
            volume(secret={"secretName": "theirs", "namespace": "another-team"}),
            "pod.volumes[0].secret",
        ),
        ("secret-to-pull", service_with_pod(imagePullSecrets=[ELSEWHERE]), "pod.imagePullSecrets[0]"),
        ("cache", service_with(model=ABSENT, modelCacheRef=ELSEWHERE), "modelCacheRef"),
    )
)

PODS: tuple[Case, ...] = (*_ENGINE, *_PLACEMENT, *_METADATA, *_VOLUMES, *_SIDECARS, *_NAMESPACES)
