"""Who may send requests: tokens, browser sessions, hosts, origins, and links to single images.

Without a token, every page that a browser on this machine shows can reach a daemon on loopback.
Hence the checks of ``Host`` (a name that an attacker points at 127.0.0.1), ``Origin`` and
``Sec-Fetch-*`` (forms, scripts and images of other sites), token or not.
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
from lloss.serve.daemon.http.login_attempts import LoginAttempts
from lloss.serve.daemon.settings import ServeSettings
from starlette.types import Scope

from lloss.errors import LlossError
from lloss.files import atomic_write

Headers = Mapping[bytes, bytes]

PROBES = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
"""Open to an orchestrator, which knows no token and no name; reasons need the token."""

COOKIE = "lloss_session"
SESSION_SECONDS = 12 * 3600
DAY = 24 * 3600
LINK_SECONDS = 30 * DAY

_OPEN = PROBES | {"/login", "/favicon.ico"}
_BASIC = "/labelstudio/"
"""Label Studio's connection has user and password only; the password is the token."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_IMAGE = re.compile(r"/v1/pools/([^/]+)/images")
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_SECRET_BYTES = 32
_secret_lock = threading.Lock()


class Access:
    """Decides who may send requests.

    Attributes:
        attempts: failed ones to log in.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._token = settings.token.encode()
        self._sessions = Sessions()
        self.attempts = LoginAttempts()
        self._hosts = frozenset(
            {*settings.allowed_hosts, settings.host.lower()}
            | (_LOCAL if settings.loopback or settings.everywhere else set())
        )
        self._public = settings.public_url.partition("://")[2].encode()
        self._any_host = settings.everywhere and not settings.allowed_hosts

    @property
    def needs_token(self) -> bool:
        """Whether a token was set."""
        return bool(self._token)

    def is_token(self, given: bytes) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(given, self._token)

    def admits(self, scope: Scope, headers: Headers) -> bool:
        """Return whether a request bears the token or a session, or none is needed."""
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
        """Return whether a path needs no token."""
        path: str = scope["path"]
        return path in _OPEN or path.startswith("/static/")

    def log_in(self, token: str) -> str | None:
        """Return a new session's cookie value, or None for a wrong token."""
        return self._sessions.new() if self.is_token(token.encode(errors="replace")) else None

    def log_out(self, headers: Headers) -> None:
        """End a request's session."""
        self._sessions.end(_session(headers.get(b"cookie", b"")))

    def signed_query(self, pool: str, id: str, seconds: float = LINK_SECONDS) -> str:
        """Sign a link to one image: ``/v1/pools/POOL/images?QUERY`` then needs no token.

        The query is the same for a whole day, so that browsers keep what they fetched. It holds for
        at least ``seconds``, across restarts, as long as the secret in the data dir.
        """
        expires = int((time.time() + seconds) // DAY + 1) * DAY
        signature = _signature(self._settings.data_dir, pool, id, expires)
        return urlencode({"id": id, "expires": expires, "sig": signature}, errors="surrogatepass")

    def link_is_good(self, scope: Scope) -> bool:
        """Return whether a request is for an image and bears a valid signature for it."""
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
            # One of each: the route would serve a second id.
            (id,), (expires,), (given,) = query["id"], query["expires"], query["sig"]
            if matched is None or int(expires) < time.time():
                return False
            right = _signature(self._settings.data_dir, matched[1], id, int(expires))
        except (ValueError, KeyError, OSError, LlossError):  # the data dir may be gone
            return False
        return hmac.compare_digest(given.encode(errors="replace"), right.encode())

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
        server = scope.get("server")
        # An attacker cannot make an address a name of this machine.
        if host in self._hosts or (server and _same_address(host, server[0])):
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
            if site is None or self.link_is_good(scope):
                return  # browsers show no reply across origins unless we allow it
            opened = headers.get(b"sec-fetch-mode") == b"navigate"
            if opened and headers.get(b"sec-fetch-dest", b"document") == b"document":
                return
        raise RequestError(403, "the request comes from a page of another site")


class Sessions:
    """Browser sessions: cookies with an expiry, signed with this process's key."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(_SECRET_BYTES)
        self._ended: dict[str, float] = {}

    def new(self) -> str:
        """Return a cookie value."""
        content = f"{int(time.time()) + SESSION_SECONDS}.{secrets.token_hex(8)}"
        return f"{content}.{self._sign(content)}"

    def valid(self, value: str) -> bool:
        """Return whether it is signed, in time and not ended."""
        content, _, signature = value.rpartition(".")
        if not content or not hmac.compare_digest(signature.encode(), self._sign(content).encode()):
            return False
        return int(content.partition(".")[0]) > time.time() and content not in self._ended

    def end(self, value: str) -> None:
        """End a session."""
        if self.valid(value):
            now = time.time()
            self._ended = {ended: until for ended, until in self._ended.items() if until > now}
            self._ended[value.rpartition(".")[0]] = now + SESSION_SECONDS

    def _sign(self, content: str) -> str:
        return hmac.digest(self._key, content.encode(), "sha256").hex()


def _password(credentials: bytes) -> bytes:
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except ValueError:
        return b""


def _session(cookie: bytes) -> str:
    """Return the session's cookie; of several the last, as the framework does."""
    pairs = (part.partition(b"=") for part in cookie.split(b";"))
    values = [value for name, _, value in pairs if name.strip() == COOKIE.encode()]
    return values[-1].strip().decode("latin-1") if values else ""


def _host_of(given: str) -> str:
    """Return the name in a Host header, without port, final dot and brackets."""
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
    """Return whether an Origin names the requested host; a proxy may change the scheme."""
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
    """Return the key of links; make one, for this user only, where it is missing.

    To remove or replace the file ends all links at once, also of a running daemon.
    """
    path = data_dir / "secret.key"
    with _secret_lock:  # of two made at once, one would sign links in vain
        try:
            state = path.stat()
            secret = _read(path, state.st_mtime_ns, state.st_ino)
        except FileNotFoundError:
            secret = b""
        if len(secret) != _SECRET_BYTES:
            secret = secrets.token_bytes(_SECRET_BYTES)
            with atomic_write(path) as aside:
                aside.touch(0o600)
                aside.write_bytes(secret)
        return secret


@lru_cache(maxsize=8)
def _read(path: Path, changed: int, file: int) -> bytes:
    """Read once for each state of the file."""
    return path.read_bytes()
