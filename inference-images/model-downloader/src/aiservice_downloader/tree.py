"""What a set of archives comes to: which file of which archive ends up where.

Everything is decided from names, sizes and links, before a byte is written: what must not be unpacked is refused
whole, the size is known, and nothing has to be deleted again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_MAX_LINKS = 40  # on the way to one place, as the system has it: links that lead to links can be made to take for ever
_MAX_DEPTH = 200


class Kind(Enum):
    """What an entry of an archive is."""

    FILE = auto()
    FOLDER = auto()
    SYMLINK = auto()
    HARDLINK = auto()
    SPECIAL = auto()
    """A device, a pipe, a socket."""


@dataclass(frozen=True)
class Entry:
    """One entry of an archive, as the archive tells it."""

    name: str
    kind: Kind
    size: int = 0
    target: str = ""
    """Where a link leads."""


@dataclass(frozen=True)
class Content:
    """The bytes of a file: an entry of an archive, both by number."""

    archive: int
    entry: int
    size: int


@dataclass(frozen=True)
class _Link:
    place: tuple[str, ...]
    """The folder that it is in."""
    target: str


@dataclass(frozen=True)
class _Special:
    pass


class _Folder(dict[str, "_Node"]):
    pass


_Node = _Folder | Content | _Link | _Special


class Tree:
    """Files, folders and links. Later archives go over earlier ones.

    In layers of an image, `/` is the image's own and links are read as in a container. Any other archive must not
    name or link to what is outside of it. All methods raise ValueError, saying which entry is wrong.
    """

    def __init__(self, *, layers: bool) -> None:
        self._layers = layers
        self._root = _Folder()
        self._archives = 0

    def add(self, entries: list[Entry]) -> None:
        """Puts the next archive over what is there."""
        archive = self._archives
        self._archives += 1
        named = [(number, entry, self._parts(entry.name)) for number, entry in enumerate(entries)]
        if self._layers:
            # Whiteouts are about earlier layers only, wherever they stand in theirs.
            for _, _, parts in named:
                if parts and parts[-1].startswith(_WHITEOUT):
                    self._white_out(parts)
            named = [item for item in named if not item[2] or not item[2][-1].startswith(_WHITEOUT)]
        for number, entry, parts in named:
            if parts:
                self._put(parts, self._node(entry, parts, archive, number))

    def files(self, below: str) -> dict[str, Content]:
        """The files below a folder (or the one file of that name), by their places relative to it."""
        parts = tuple(below.split("/")) if below else ()
        node = self._find(parts)
        if isinstance(node, Content):
            return {parts[-1]: node}
        if not isinstance(node, _Folder):
            return {}
        return dict(self._walk(node, ""))

    def _walk(self, folder: _Folder, prefix: str) -> Iterator[tuple[str, Content]]:
        for name, node in folder.items():
            path = prefix + name
            if isinstance(node, _Folder):
                yield from self._walk(node, f"{path}/")
                continue
            found = self._follow(node) if isinstance(node, _Link) else node
            if not isinstance(found, Content):
                raise ValueError(f"{path!r} is {_what(node, found)}, and a model consists of files")
            yield path, found

    def _parts(self, name: str) -> tuple[str, ...]:
        if name.startswith("/") and not self._layers:
            raise ValueError(f"{name!r} is an absolute path")
        parts = tuple(part for part in name.split("/") if part not in {"", "."})
        if ".." in parts:
            raise ValueError(f"{name!r} leads out of the archive")
        if len(parts) > _MAX_DEPTH:
            raise ValueError(f"{name[:100]!r}... is more than {_MAX_DEPTH} folders deep")
        return parts

    def _node(self, entry: Entry, parts: tuple[str, ...], archive: int, number: int) -> _Node:
        match entry.kind:
            case Kind.FILE:
                return Content(archive, number, entry.size)
            case Kind.FOLDER:
                return _Folder()
            case Kind.SYMLINK:
                link = _Link(parts[:-1], entry.target)
                if not self._layers and self._leads_out(link):
                    raise ValueError(f"{entry.name!r} is a link out of the archive, to {entry.target!r}")
                return link
            case Kind.HARDLINK:
                found = self._find(self._parts(entry.target))
                if not isinstance(found, Content):
                    raise ValueError(f"{entry.name!r} is a link to {entry.target!r}, which is no file before it")
                return found
            case Kind.SPECIAL:
                if not self._layers:
                    raise ValueError(f"{entry.name!r} is a device or a pipe")
                return _Special()

    def _leads_out(self, link: _Link) -> bool:
        if link.target.startswith("/"):
            return True
        depth = len(link.place)
        for part in link.target.split("/"):
            depth += -1 if part == ".." else part not in {"", "."}
            if depth < 0:
                return True
        return False

    def _white_out(self, parts: tuple[str, ...]) -> None:
        folder, name = self._find(parts[:-1]), parts[-1]
        if not isinstance(folder, _Folder):
            return
        if name == _OPAQUE:
            folder.clear()
        else:
            folder.pop(name.removeprefix(_WHITEOUT), None)

    def _put(self, parts: tuple[str, ...], node: _Node) -> None:
        folder = self._root
        for end in range(1, len(parts)):
            inner = folder.get(parts[end - 1])
            found = self._follow(inner) if isinstance(inner, _Link) else inner
            if not isinstance(found, _Folder):
                found = folder[parts[end - 1]] = _Folder()
            folder = found
        there = folder.get(parts[-1])
        if isinstance(node, _Folder) and there is not None and isinstance(self._resolve(there), _Folder):
            return  # it may hold files already
        folder[parts[-1]] = node

    def _resolve(self, node: _Node) -> _Node | None:
        return self._follow(node) if isinstance(node, _Link) else node

    def _follow(self, link: _Link, budget: list[int] | None = None) -> _Node | None:
        """What a link leads to in the end; None if that is nothing."""
        budget = [_MAX_LINKS] if budget is None else budget
        if budget[0] == 0:
            return None
        budget[0] -= 1
        start: tuple[str, ...] = () if link.target.startswith("/") else link.place
        return self._find((*start, *link.target.split("/")), budget)

    def _find(self, parts: tuple[str, ...], budget: list[int] | None = None) -> _Node | None:
        """What is at a place; `..` above the root stays at the root, as in a container."""
        budget = [_MAX_LINKS] if budget is None else budget
        trail: list[_Folder] = [self._root]
        node: _Node = self._root
        for part in parts:
            if part in {"", "."}:
                continue
            if not isinstance(node, _Folder):
                return None
            if part == "..":
                if len(trail) > 1:
                    trail.pop()
                node = trail[-1]
                continue
            inner = node.get(part)
            found = self._follow(inner, budget) if isinstance(inner, _Link) else inner
            if found is None:
                return None
            node = found
            if isinstance(node, _Folder):
                trail.append(node)
        return node


def _what(node: _Node, found: _Node | None) -> str:
    if isinstance(node, _Link):
        return f"a link to {node.target!r}, which is {'no file' if found is not None else 'not there'}"
    return "a device or a pipe"
