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
_FILES = 10_000
"""Files that a pattern with braces may match: each is checked while the client waits."""

_CONTROL = re.compile(r"[\0-\x1f\x7f]")


class PoolRoots:
    """The absolute folders and URL prefixes of ``--pool-root``."""

    def __init__(self, roots: Iterable[str]) -> None:
        self._roots = tuple(roots)
        paths = [PoolUri.parse(root).path for root in self._roots]
        urls = [path for path in paths if is_url(path)]
        self.confinement = Confinement([path for path in paths if not is_url(path)], urls)

    def check(self, uri: str) -> PoolUri:
        """Parse a pool's URI, and check that everything it may mean is inside a root.

        Raises RequestError: 403 it is not; 422 neither an absolute path nor a URL.
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
        parsed = self.check(path)
        if is_url(parsed.path):
            raise RequestError(422, f"{path}: is a URL; give a path of the daemon's machine")
        return Path(os.path.realpath(parsed.path))

    def _check_name(self, name: str, image: str) -> None:
        if is_url(name):
            self._check_url(name, image)
            return
        path = Path(name)
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
        urls = self.confinement.urls
        if not any(url == root or url.startswith((f"{root}/", f"{root}?")) for root in urls):
            raise self._outside(shown)

    def _outside(self, shown: str) -> RequestError:
        return RequestError(
            403,
            f"{shown}: outside every --pool-root "
            f"({', '.join(map(without_secrets, self._roots))}); move it there, "
            "or start the daemon with --pool-root of its folder",
        )
