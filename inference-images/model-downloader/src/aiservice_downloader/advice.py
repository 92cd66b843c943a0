"""What people can do about a failure. It depends on who runs the download: a Job for a ModelCache, or a person."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Advice:
    """Parts of messages, by default for who states a model in a manifest."""

    anonymous: str = "check its name, and name a Secret with an access token in tokenSecretRef"
    """What to do where the Hub wants a token and there is none."""
    credential: str = "of tokenSecretRef"
    """Which token it is that the Hub refuses."""
    network: str = "Check that the server works and that pods of this namespace may reach it (proxy, network policies)"
    """What to look at where a server cannot be reached."""
    digest: str = "if the source is right, correct the digest in the model's spec; else the file was changed or damaged"
    """What it means that the content at the source has another digest, before the words "at the source"."""
    space: str = "raise storage.size of the model, or free space on the volume's disk"
    """What to do where the files do not fit."""
    volume: str = "Check that it is mounted writable for this pod's user, and healthy"
    """What to look at where the file system fails."""


FOR_MANIFESTS = Advice()
"""For who states a model in a manifest."""
