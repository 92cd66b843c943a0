"""Keys and certificates of a cluster, made once with openssl and kept for as long as the cluster exists.

Elliptic-curve keys: a cluster needs fifteen of them, and RSA would take longer than everything else together.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from localcluster.commands import run
from localcluster.files import write_file

_DAYS = "3650"
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-sha256")


@dataclass(frozen=True)
class Certificate:
    """A certificate to make: for a client its user and groups, for a server the names and addresses it answers to."""

    name: str
    user: str
    groups: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    authority: str = "ca"


class Pki:
    """The folder of keys. Nothing that is there is made again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def certificate(self, name: str) -> Path:
        """The file of a certificate."""
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        """The file of a private key."""
        return self.folder / f"{name}.key"

    def make(self, certificates: Sequence[Certificate]) -> None:
        """Make the authorities ("ca" and "front-proxy-ca"), the key that signs tokens, and the certificates."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(self._authority, ("ca", "front-proxy-ca")))
            list(pool.map(self._issue, certificates))
        if not self.key("service-accounts").exists():
            self._write_key_pair("service-accounts")

    def _authority(self, name: str) -> None:
        self._request(
            name,
            ["-subj", f"/CN=aiservice-{name}", "-addext", "keyUsage=critical,digitalSignature,keyCertSign,cRLSign"],
        )

    def _issue(self, wanted: Certificate) -> None:
        subject = "".join(f"/O={group}" for group in wanted.groups) + f"/CN={wanted.user}"
        arguments = [
            *("-CA", str(self.certificate(wanted.authority)), "-CAkey", str(self.key(wanted.authority))),
            *("-subj", subject, "-addext", "basicConstraints=critical,CA:FALSE"),
            *("-addext", "extendedKeyUsage=clientAuth,serverAuth"),
        ]
        if wanted.hosts:
            arguments += ["-addext", "subjectAltName=" + ",".join(map(_alternative_name, wanted.hosts))]
        self._request(wanted.name, arguments)

    def _request(self, name: str, arguments: Sequence[str]) -> None:
        if self.certificate(name).exists():
            return
        # The certificate comes last and by rename: where it is, the key belongs to it.
        draft = self.certificate(name).with_suffix(".new")
        key = self.key(name)
        run(["openssl", "req", "-x509", *_KEY, "-keyout", key, "-out", draft, "-days", _DAYS, *arguments])
        draft.replace(self.certificate(name))

    def _write_key_pair(self, name: str) -> None:
        draft = self.key(name).with_suffix(".new")
        run(["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", draft])
        run(["openssl", "pkey", "-in", draft, "-pubout", "-out", self.folder / f"{name}.pub"])
        draft.replace(self.key(name))

    def write_kubeconfig(self, path: Path, certificate: str, server: str) -> None:
        """A kubeconfig that needs no other file. JSON is YAML, so every client reads it."""
        write_file(path, json.dumps(self._kubeconfig(certificate, server), indent=2) + "\n")

    def _kubeconfig(self, certificate: str, server: str) -> Mapping[str, object]:
        user = {
            "client-certificate-data": _encoded(self.certificate(certificate)),
            "client-key-data": _encoded(self.key(certificate)),
        }
        cluster = {"server": server, "certificate-authority-data": _encoded(self.certificate("ca"))}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "local", "cluster": cluster}],
            "users": [{"name": certificate, "user": user}],
            "contexts": [{"name": "local", "context": {"cluster": "local", "user": certificate}}],
            "current-context": "local",
        }


def _alternative_name(host: str) -> str:
    return ("IP:" if host.replace(".", "").isdigit() else "DNS:") + host


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
