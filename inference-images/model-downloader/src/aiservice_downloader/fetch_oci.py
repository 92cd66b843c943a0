"""Lists what the layers of an OCI image or artifact hold, and says how they become files.

Three kinds of layers are known, and may be mixed:

- with the annotation `org.opencontainers.image.title`: the layer is a file of that name (ORAS);
- with that and `io.deis.oras.content.unpack`: the layer is an archive of a folder of that name (ORAS);
- an archive without a name: a layer of an image, which goes over those before it.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from aiservice_downloader.client import HttpClient
from aiservice_downloader.digests import Digest
from aiservice_downloader.errors import DownloadError, Reason
from aiservice_downloader.files import Plan, RemoteFile, Unpack
from aiservice_downloader.image_name import parse_image
from aiservice_downloader.paths import check_distinct, check_relative_path
from aiservice_downloader.registry import Registry
from aiservice_downloader.registry_login import RegistryLogins
from aiservice_downloader.retry import Patience
from aiservice_downloader.source import OciSource

TITLE = "org.opencontainers.image.title"
UNPACK = "io.deis.oras.content.unpack"
_PLATFORM = ("linux", "amd64")


class _Document(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class _Platform(_Document):
    os: str = ""
    architecture: str = ""


class Descriptor(_Document):
    """A reference to a blob or a manifest."""

    media_type: str = ""
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    size: int = Field(ge=0)
    annotations: dict[str, str] | None = None
    platform: _Platform | None = None

    def annotation(self, name: str) -> str:
        """An annotation; empty if it is not there."""
        return (self.annotations or {}).get(name, "")

    @property
    def is_archive(self) -> bool:
        """Whether the media type is that of a tar file: of an image, a model kit, or the like."""
        return ".tar" in self.media_type

    @property
    def sha256(self) -> str:
        """The digest in hex."""
        return self.digest.removeprefix("sha256:")


class _Manifest(_Document):
    """An index has `manifests`, a manifest has `layers`."""

    manifests: tuple[Descriptor, ...] | None = None
    layers: tuple[Descriptor, ...] | None = None


def plan_image(
    source: OciSource, *, pinned: str | None, logins: RegistryLogins, client: HttpClient, patience: Patience
) -> Plan:
    """Resolves the image to a digest and lists its layers.

    Args:
        source: The image.
        pinned: The digest to take instead of what the tag names by now.
        logins: For registries.
        client: For all requests.
        patience: With the registry.

    Raises:
        DownloadError: If the image is not to be had, or holds what cannot be used.
        StopRequested: If the download is to end.
    """
    image = parse_image(source.image)
    registry = Registry(image, logins.for_image(image), client, patience)
    body, digest = registry.manifest(pinned or image.reference)
    document = _parse(body, source.image)
    if document.manifests is not None:
        body, _ = registry.manifest(_choose(document.manifests, source.image).digest)
        document = _parse(body, source.image)
    if not document.layers:
        raise DownloadError(Reason.NOT_FOUND, f"{source.image} has no layers: name an image or an artifact with files.")
    try:
        return _plan(document.layers, source.path, digest, registry)
    except ValueError as error:
        raise DownloadError(Reason.BAD_SOURCE, f"{source.image} has a layer that is refused: {error}.") from error


def _parse(body: bytes, where: str) -> _Manifest:
    try:
        return _Manifest.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        at = ".".join(str(part) for part in problem["loc"])
        raise DownloadError(
            Reason.BAD_SOURCE,
            f"The manifest of {where} cannot be used ({at + ': ' if at else ''}{problem['msg']}): check that the "
            "address is one of a registry, and that the image is no older than schema 2.",
        ) from error


def _choose(manifests: tuple[Descriptor, ...], where: str) -> Descriptor:
    """The manifest for this platform; or the only one, if it is for no platform, as models are."""
    for manifest in manifests:
        if manifest.platform is not None and (manifest.platform.os, manifest.platform.architecture) == _PLATFORM:
            return manifest
    if len(manifests) == 1 and manifests[0].platform is None:
        return manifests[0]
    offered = sorted({f"{item.platform.os}/{item.platform.architecture}" for item in manifests if item.platform})
    raise DownloadError(
        Reason.NOT_FOUND,
        f"{where} is there for {', '.join(offered) or 'no platform'} and not for {'/'.join(_PLATFORM)}: name an image "
        "that is, or the digest of one of its manifests.",
    )


def _plan(layers: tuple[Descriptor, ...], below: str, revision: str, registry: Registry) -> Plan:
    files: list[RemoteFile] = []
    unpacks: list[Unpack] = []
    image: list[RemoteFile] = []
    for number, layer in enumerate(layers, start=1):
        title = layer.annotation(TITLE)
        if title and layer.annotation(UNPACK) != "true":
            if (path := _relative(check_relative_path(title), below)) is not None:
                files.append(_blob(layer, path, registry, packed=False))
            continue
        if not title and not layer.is_archive:
            raise ValueError(
                f"layer {number} of type {layer.media_type!r} is no archive and has no name; name it with {TITLE}"
            )
        archive = _blob(layer, f"{title or 'layer'} ({number} of {len(layers)})", registry, packed=True)
        if title:
            unpacks.append(Unpack((archive,), below=below))
        else:
            image.append(archive)
    if image:
        unpacks.append(Unpack(tuple(image), below=below, layers=True))
    check_distinct(file.path for file in files)
    archives = [archive for unpack in unpacks for archive in unpack.archives]
    if not files and not archives:
        raise DownloadError(
            Reason.NOT_FOUND, f"No file of the image is below {below!r}: correct path in the model's spec."
        )
    return Plan((*files, *archives), revision, tuple(unpacks))


def _relative(path: str, below: str) -> str | None:
    """A place relative to the folder that is wanted; None if it is not in there."""
    if not below or path == below:
        return path.rpartition("/")[2] if below else path
    return path.removeprefix(f"{below}/") if path.startswith(f"{below}/") else None


def _blob(layer: Descriptor, path: str, registry: Registry, *, packed: bool) -> RemoteFile:
    url = registry.blob_url(layer.digest)
    return RemoteFile(
        path=path,
        url=url,
        digest=Digest("sha256", layer.sha256),
        access_hint=registry.access_hint,
        size=layer.size,
        sign=lambda: registry.sign(url),
        packed=packed,
    )
