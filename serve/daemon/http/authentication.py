"""Who may ask: tokens, sessions of browsers, hosts, other sites, and links to single images.

A daemon on loopback without a token can be reached from every page that a browser on the machine
shows. Hence the checks of ``Host`` (a name that an attacker points at 127.0.0.1), of ``Origin`` and
of ``Sec-Fetch-*`` (forms, scripts and images of other sites), token or not.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import re
import secrets
import threading
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.http.login_attempts import Attempts
from lloss.serve.daemon.settings import ServeSettings
from starlette.types import Scope

from lloss.errors import LlossError
from lloss.files import written_aside

Headers = Mapping[bytes, bytes]

PROBES = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
"""For who knows no token and no name: an orchestrator. Reasons are told to who has the token."""

COOKIE = "lloss_session"
SESSION_SECONDS = 12 * 3600
DAY = 24 * 3600
LINK_SECONDS = 30 * DAY

_OPEN = PROBES | {"/login", "/favicon.ico"}
_BASIC = "/labelstudio/"
"""Label Studio's backend connection knows user and password alone; the password is the token."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_IMAGE = re.compile(r"/v1/pools/([^/]+)/images")
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_SECRET_BYTES = 32
_MAKING = threading.Lock()
"""Held while the secret is made: of two that are made at once one would sign links in vain."""


class Access:
    """Who may ask a daemon.

    Attributes:
        attempts: to log in, which failed.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._token = settings.token.encode()
        self._sessions = Sessions()
        self.attempts = Attempts()
        self._hosts = frozenset(
            {*settings.allowed_hosts, settings.host.lower()}
            | (_LOCAL if settings.loopback or settings.everywhere else set())
        )
        self._public = settings.public_url.partition("://")[2].encode()
        self._any_host = settings.everywhere and not settings.allowed_hosts

    def check_origin(self, scope: Scope, headers: Headers) -> None:
        """Refuse what a page of another site makes a browser send, and names that are not ours.

        Raises:
            RequestError: 400, 403 or 421.
        """
        path = scope["path"]
        if path not in PROBES:
            self._check_host(scope, headers.get(b"host"))
        if b"origin" in headers or b"sec-fetch-site" in headers:
            self._check_site(scope, headers)

    def admits(self, scope: Scope, headers: Headers) -> bool:
        """Whether a request bears the token or a session, or none is needed."""
        if not self._token:
            return True
        given = headers.get(b"authorization")
        if given is not None:
            scheme, _, token = given.partition(b" ")
            if scheme.lower() == b"basic" and scope["path"].startswith(_BASIC):
                return self.is_token(_password(token.strip()))
            return scheme.lower() == b"bearer" and self.is_token(token.strip())
        cookie = headers.get(b"cookie")
        return cookie is not None and self._sessions.valid(_session(cookie))

    def open_to_all(self, scope: Scope) -> bool:
        """Whether a path needs no token."""
        path: str = scope["path"]
        return path in _OPEN or path.startswith("/static/")

    def is_token(self, given: bytes) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(given, self._token)

    @property
    def needs_token(self) -> bool:
        """Whether a token was set."""
        return bool(self._token)

    def log_in(self, token: str) -> str | None:
        """A new session for who knows the token: the cookie's value."""
        return self._sessions.new() if self.is_token(token.encode(errors="replace")) else None

    def log_out(self, headers: Headers) -> None:
        """End the session that a request bears."""
        self._sessions.end(_session(headers.get(b"cookie", b"")))

    def signed_query(self, pool: str, id: str, seconds: float = LINK_SECONDS) -> str:
        """Sign a link to one image: ``/v1/pools/POOL/images?QUERY`` then needs no token.

        The query is the same for a whole day, so that browsers keep what they fetched, and holds
        for at least ``seconds``, across restarts, as long as the secret in the data dir.
        """
        expires = int((time.time() + seconds) // DAY + 1) * DAY
        signature = _signature(self._settings.data_dir, pool, id, expires)
        return urlencode({"id": id, "expires": expires, "sig": signature}, errors="surrogatepass")

    def link_is_good(self, scope: Scope) -> bool:
        """Whether a request is for an image and bears a signature for this very one."""
        if b"sig=" not in scope["query_string"] or scope["method"] not in ("GET", "HEAD"):
            return False
        matched = _IMAGE.fullmatch(scope["path"])
        try:
            query = parse_qs(
                scope["query_string"].decode("ascii"),
                keep_blank_values=True,
                errors="surrogatepass",
                max_num_fields=16,
            )
            # One of each: a second id would be what the route serves.
            (id,), (expires,), (given,) = query["id"], query["expires"], query["sig"]
            if matched is None or int(expires) < time.time():
                return False
            right = _signature(self._settings.data_dir, matched[1], id, int(expires))
        except (ValueError, KeyError, OSError, LlossError):  # or the data dir is gone
            return False
        return hmac.compare_digest(given.encode(errors="replace"), right.encode())

    def _check_host(self, scope: Scope, given: bytes | None) -> None:
        if given is None:
            if scope.get("http_version") == "1.0":
                return
            raise RequestError(400, "the request has no Host header")
        if self._any_host:
            return
        host = _host_of(given.decode("latin-1"))
        server = scope.get("server")
        # An address cannot be an attacker's name for this machine.
        if host in self._hosts or (server and _same_address(host, server[0])):
            return
        raise RequestError(
            421, f"Host {host!r} is not one of this server's names; add it by --allowed-host"
        )

    def _check_site(self, scope: Scope, headers: Headers) -> None:
        site = headers.get(b"sec-fetch-site")
        if site is not None:
            ours = site in (b"same-origin", b"none")
        else:
            origin = headers.get(b"origin", b"")
            ours = _same_origin(origin, headers.get(b"host", b""))
            if not ours and self._public:  # a proxy may have put another Host there
                ours = _same_origin(origin, self._public)
        if ours:
            return
        if scope["method"] not in _SAFE:
            raise RequestError(403, "the request comes from a page of another site")
        if site is None or self.link_is_good(scope):
            return  # of a GET across origins the browser shows nothing without our leave
        opened = headers.get(b"sec-fetch-mode") == b"navigate"
        if not (opened and headers.get(b"sec-fetch-dest", b"document") == b"document"):
            raise RequestError(403, "the request comes from a page of another site")


def _password(credentials: bytes) -> bytes:
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except ValueError:
        return b""


class Sessions:
    """Of browsers: a cookie that says until when it holds, signed with this process's key."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(_SECRET_BYTES)
        self._ended: dict[str, float] = {}

    def new(self) -> str:
        """The cookie's value."""
        told = f"{int(time.time()) + SESSION_SECONDS}.{secrets.token_hex(8)}"
        return f"{told}.{self._sign(told)}"

    def valid(self, value: str) -> bool:
        """Whether it is one of ours, in time and not ended."""
        told, _, signature = value.rpartition(".")
        if not told or not hmac.compare_digest(signature.encode(), self._sign(told).encode()):
            return False
        return int(told.partition(".")[0]) > time.time() and told not in self._ended

    def end(self, value: str) -> None:
        """Take a session back."""
        if self.valid(value):
            now = time.time()
            self._ended = {told: until for told, until in self._ended.items() if until > now}
            self._ended[value.rpartition(".")[0]] = now + SESSION_SECONDS

    def _sign(self, told: str) -> str:
        return hmac.digest(self._key, told.encode(), "sha256").hex()


def _session(cookie: bytes) -> str:
    """Its value, which is never quoted; of one given twice the last, as the framework reads it."""
    pairs = (part.partition(b"=") for part in cookie.split(b";"))
    found = [value for name, _, value in pairs if name.strip() == COOKIE.encode()]
    return found[-1].strip().decode("latin-1") if found else ""


def _host_of(given: str) -> str:
    """The name in a Host header: without port, dot at the end and brackets."""
    host = given.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


def _same_address(host: str, server: str) -> bool:
    try:
        return ipaddress.ip_address(host) == ipaddress.ip_address(server)
    except ValueError:
        return False


def _same_origin(origin: bytes, host: bytes) -> bool:
    """Whether an Origin names the host that was asked; the scheme is the proxy's affair."""
    try:
        parts = urlsplit(origin.decode("ascii").lower())
    except (ValueError, UnicodeDecodeError):
        return False
    default = {"http": ":80", "https": ":443"}.get(parts.scheme)
    asked = host.decode("latin-1").lower()
    return default is not None and parts.netloc.removesuffix(default) == asked.removesuffix(default)


def _signature(data_dir: Path, pool: str, id: str, expires: int) -> str:
    message = f"{expires}\n{pool}\n{id}".encode(errors="surrogatepass")
    return hmac.digest(_secret(data_dir), message, "sha256").hex()


def _secret(data_dir: Path) -> bytes:
    """What links are signed with; made when there is none yet, for this user's eyes alone.

    Who removes or replaces the file ends all links that were signed, also those of a daemon that
    runs.
    """
    path = data_dir / "secret.key"
    with _MAKING:
        try:
            state = path.stat()
            found = _read(path, state.st_mtime_ns, state.st_ino)
        except FileNotFoundError:
            found = b""
        if len(found) == _SECRET_BYTES:
            return found
        made = secrets.token_bytes(_SECRET_BYTES)
        with written_aside(path) as aside:
            aside.touch(0o600)
            aside.write_bytes(made)
        return made


@lru_cache(maxsize=8)
def _read(path: Path, changed: int, file: int) -> bytes:
    """Read once for each state of the file."""
    return path.read_bytes()
