"""The folders and URLs that pools may be opened in."""

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
"""That a pattern with braces may match: each is checked while the client waits."""

_CONTROL = re.compile(r"[\0-\x1f\x7f]")


class PoolRoots:
    """The absolute folders and URL prefixes of ``--pool-root``."""

    def __init__(self, roots: Iterable[str]) -> None:
        self._roots = tuple(roots)
        self._urls = tuple(root.rstrip("/") for root in self._roots if _is_remote(root))
        folders = [_local(root) for root in self._roots if not _is_remote(root)]
        self.confinement = Confinement(folders, self._urls)

    def check(self, uri: str) -> PoolUri:
        """Parse a pool's URI, and check that everything it may mean is inside a root.

        Raises:
            RequestError: 403 it is not, or no root is configured; 422 neither an absolute path nor
                a URL.
            PoolError: its braces or options are malformed.
        """
        if not self._roots:
            raise RequestError(
                403, "no pool may be opened: start the daemon with --pool-root FOLDER (or URL)"
            )
        if not uri or _CONTROL.search(uri):
            raise RequestError(422, f"the pool {uri[:200]!r}: give a path or a URL")
        parsed = PoolUri.parse(uri)
        for name in parsed.paths(_FILES):
            self._check_name(name, parsed.options.get("image", ""))
        return parsed

    def check_path(self, path: str) -> Path:
        """Resolve a path of this machine that is inside a root; RequestError 403 or 422."""
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
                422,
                f"{name[:200]!r}: is not an absolute path; give one, or a URL, in a --pool-root",
            )
        paths = [path, path.parent / image] if "/" in image or ".." in image else [path]
        if not all(map(self.confinement.holds_path, paths)):
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
            f"{shown}: outside every --pool-root "
            f"({', '.join(map(without_secrets, self._roots))}); move it there, "
            "or start the daemon with --pool-root of its folder",
        )


def _is_remote(uri: str) -> bool:
    return is_url(uri) and uri.partition("://")[0] not in _LOCAL


def _local(name: str) -> Path:
    """The path of a local URI."""
    scheme, mark, rest = name.partition("://")
    return Path(rest) if mark and scheme in _LOCAL else Path(name)
