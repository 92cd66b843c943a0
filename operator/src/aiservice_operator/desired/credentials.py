"""The Secrets that open sources: which keys of them a download is given, and as which environment variables."""

from __future__ import annotations

from dataclasses import dataclass

from kubernetes.aio import client

from aiservice_api.v1alpha1 import ModelCacheSpec


@dataclass(frozen=True, slots=True)
class Credentials:
    """A Secret, and the environment variables that are made from its keys."""

    secret: str
    keys: dict[str, str]
    """Key of the Secret by variable."""
    optional: frozenset[str] = frozenset()
    """Variables whose key the Secret need not have."""

    def variables(self) -> list[client.V1EnvVar]:
        """Builds the environment variables."""
        return [
            client.V1EnvVar(
                name=name,
                value_from=client.V1EnvVarSource(
                    secret_key_ref=client.V1SecretKeySelector(
                        name=self.secret, key=key, optional=True if name in self.optional else None
                    )
                ),
            )
            for name, key in self.keys.items()
        ]


_S3 = {name: name for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")}


def credentials_of(spec: ModelCacheSpec) -> Credentials | None:
    """Returns the credentials that a source names; None where it names none."""
    if spec.hugging_face is not None and spec.hugging_face.token_secret_ref is not None:
        token = spec.hugging_face.token_secret_ref
        return Credentials(token.name, {"HF_TOKEN": token.key})
    if spec.s3 is not None and spec.s3.credentials_secret_ref is not None:
        return Credentials(spec.s3.credentials_secret_ref.name, _S3, frozenset({"AWS_SESSION_TOKEN"}))
    if spec.oci is not None and spec.oci.pull_secret_ref is not None:
        return Credentials(spec.oci.pull_secret_ref.name, {"DOCKER_AUTH_CONFIG": ".dockerconfigjson"})
    return None
