"""Who may send requests: token, hosts and origins.

Without a token, every page that a browser on this machine shows can reach a daemon on loopback;
with one, a browser sends its password along with requests of other sites' pages. Hence the checks
of ``Host`` (a name that an attacker points at 127.0.0.1), ``Origin`` and ``Sec-Fetch-*`` (forms,
scripts and images of other sites), token or not.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from urllib.parse import urlsplit

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.http.image_links import ImageLinks
from lloss.serve.daemon.settings import ServeSettings, parse_address
from starlette.types import Scope

Headers = Mapping[bytes, bytes]

PROBES = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
"""Open to an orchestrator, which knows no token and no name; reasons need the token."""

_OPEN = PROBES | {"/favicon.ico"}
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


class Authentication:
    """Decides who may send requests."""

    def __init__(self, settings: ServeSettings) -> None:
        self._token = settings.token.encode()
        self.links = ImageLinks(settings.data_dir)
        self._hosts = frozenset(
            {*settings.allowed_hosts, settings.host.lower()}
            | (_LOCAL if settings.loopback or settings.everywhere else set())
        )
        self._public = settings.public_url.partition("://")[2].encode()
        self._any_host = settings.everywhere and not settings.allowed_hosts

    def admits(self, headers: Headers) -> bool:
        """Return whether a request has the token, or none is needed; compares in constant time."""
        given = _given_token(headers.get(b"authorization", b""))
        return not self._token or hmac.compare_digest(given, self._token)

    def open_to_all(self, scope: Scope) -> bool:
        """Return whether a path needs no token."""
        path: str = scope["path"]
        return path in _OPEN or path.startswith("/static/")

    def check_origin(self, scope: Scope, headers: Headers) -> None:
        """Refuse unknown host names, and what pages of other sites make a browser send.

        Raises:
            RequestError: 400, 403 or 421.
        """
        if scope["path"] not in PROBES:
            self._check_host(scope, headers.get(b"host"))
        if b"origin" in headers or b"sec-fetch-site" in headers:
            self._check_site(scope, headers)

    def _check_host(self, scope: Scope, given: bytes | None) -> None:
        if given is None:
            if scope.get("http_version") == "1.0":
                return
            raise RequestError(400, "the request has no Host header")
        if self._any_host:
            return
        host = _host_of(given.decode("latin-1"))
        if host in self._hosts:
            return
        # An attacker cannot make an address a name of this machine.
        address, server = parse_address(host), scope.get("server")
        if address is not None and server and address == parse_address(server[0]):
            return
        message = f"Host {host!r} is not one of this server's names; add it by --allowed-host"
        raise RequestError(421, message)

    def _check_site(self, scope: Scope, headers: Headers) -> None:
        site = headers.get(b"sec-fetch-site")
        if site is not None:
            ours = site in (b"same-origin", b"none")
        else:
            origin = headers.get(b"origin", b"")
            ours = _same_origin(origin, headers.get(b"host", b""))
            if not ours and self._public:  # a proxy may have set another Host
                ours = _same_origin(origin, self._public)
        if ours:
            return
        if scope["method"] in _SAFE:
            if site is None or self.links.valid(scope):
                return  # browsers show no reply across origins unless we allow it
            opened = headers.get(b"sec-fetch-mode") == b"navigate"
            if opened and headers.get(b"sec-fetch-dest", b"document") == b"document":
                return
        raise RequestError(403, "the request comes from a page of another site")


def _given_token(authorization: bytes) -> bytes:
    """Return a bearer token, or the password of browsers and Label Studio, of any user."""
    scheme, _, given = authorization.partition(b" ")
    if scheme.lower() == b"bearer":
        return given.strip()
    try:
        decoded = base64.b64decode(given.strip(), validate=True)
    except ValueError:
        return b""
    return decoded.partition(b":")[2] if scheme.lower() == b"basic" else b""


def _host_of(given: str) -> str:
    """Return the name in a Host header, without port, final dot and brackets."""
    host = given.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


def _same_origin(origin: bytes, host: bytes) -> bool:
    """Return whether an Origin names the requested host; a proxy may change the scheme."""
    try:
        parts = urlsplit(origin.decode("ascii").lower())
    except (ValueError, UnicodeDecodeError):
        return False
    default = {"http": ":80", "https": ":443"}.get(parts.scheme)
    asked = host.decode("latin-1").lower()
    return default is not None and parts.netloc.removesuffix(default) == asked.removesuffix(default)
