"""Under which folders and URLs pools may lie."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lloss.serve.daemon.errors import RequestError

from lloss.pools.confinement import Confinement
from lloss.pools.uri import PoolUri, is_url, without_secrets

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_LOCAL = ("file", "local")
_FILES = 10_000
"""That braces may stand for: each is looked at, and that while the client waits."""

_CONTROL = re.compile(r"[\0-\x1f\x7f]")


class Roots:
    """The roots of ``--pool-root``.

    Args:
        roots: absolute folders, or URL prefixes.

    Attributes:
        within: what files of pools are confined to.
    """

    def __init__(self, roots: Iterable[str]) -> None:
        self._roots = tuple(roots)
        self._urls = tuple(root.rstrip("/") for root in self._roots if _is_remote(root))
        folders = [_local(root) for root in self._roots if not _is_remote(root)]
        self.within = Confinement(folders, self._urls)

    def check(self, uri: str) -> PoolUri:
        """Parse a pool's string, and make sure that all it means is under a root.

        Raises:
            RequestError: 403 it does not, or there is no root; 422 it is no absolute path or URL.
            PoolError: its braces or options cannot be read.
        """
        if not self._roots:
            raise RequestError(
                403, "no pool may be opened: start the daemon with --pool-root FOLDER (or URL)"
            )
        if not uri or _CONTROL.search(uri):
            raise RequestError(422, f"the pool {uri[:200]!r}: give a path or a URL")
        asked = PoolUri.parse(uri)
        for name in asked.paths(_FILES):
            self._check_name(name, asked.options.get("image", ""))
        return asked

    def check_path(self, path: str) -> Path:
        """A path of this machine that lies under a root, links followed.

        Raises:
            RequestError: 403 it does not; 422 it is not absolute.
        """
        self.check(path)
        if _is_remote(path):
            raise RequestError(422, f"{path}: is a URL; give a path of the daemon's machine")
        return Path(os.path.realpath(_local(path)))

    def _check_name(self, name: str, image: str) -> None:
        if _is_remote(name):
            self._check_url(name, image)
            return
        path = _local(name)
        if not path.is_absolute():
            raise RequestError(
                422, f"{name[:200]!r}: is no absolute path; give one, or a URL, under a --pool-root"
            )
        # The last part may hold a star, which stands for names in its folder.
        looked_at = [path, path.parent / image] if "/" in image or ".." in image else [path]
        for one in looked_at:
            if not self.within.holds_path(one):
                raise self._outside(name)

    def _check_url(self, url: str, image: str) -> None:
        shown = without_secrets(url)
        scheme, _, rest = url.partition("://")
        if "::" in url or not _SCHEME.fullmatch(scheme):
            raise RequestError(403, f"{shown}: URLs inside of URLs are not opened")
        if "@" in urlsplit(url).netloc:
            raise RequestError(
                403, f"{shown}: leave user and password out; the daemon's environment has them"
            )
        plain = unquote(f"{rest}/{image}")
        if {".", ".."} & set(plain.split("/")) or "\\" in plain or "#" in rest:
            raise RequestError(403, f"{shown}: has a . or .. or # in it; give the plain URL")
        if not any(url == root or url.startswith((f"{root}/", f"{root}?")) for root in self._urls):
            raise self._outside(shown)

    def _outside(self, shown: str) -> RequestError:
        return RequestError(
            403,
            f"{shown}: lies under none of the roots that pools may lie under "
            f"({', '.join(map(without_secrets, self._roots))}); move it there, "
            "or start the daemon with --pool-root of its folder",
        )


def _is_remote(uri: str) -> bool:
    return is_url(uri) and uri.partition("://")[0] not in _LOCAL


def _local(name: str) -> Path:
    """A path, also of a ``file://`` URL."""
    scheme, mark, rest = name.partition("://")
    return Path(rest) if mark and scheme in _LOCAL else Path(name)
