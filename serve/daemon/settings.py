"""What ``lloss serve`` was told."""

from __future__ import annotations

import dataclasses
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from lloss.errors import SettingsError

TOKEN = 16
"""Characters that a token has at least: it can be tried as fast as the network allows."""


_OPTIONS = {
    "body_bytes": "--max-body",
    "queue_images": "--queue",
    "request_seconds": "--timeout",
    "drain_seconds": "--drain",
    "batch_size": "--batch-size",
    "job_batch_size": "--job-batch-size",
    "threads": "--threads",
}
"""By which these are given on the command line; the others are of the library alone."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much anybody may ask for.

    Attributes:
        body_bytes: of a request as it comes over the network.
        inflated_bytes: of it after gzip or deflate.
        in_flight_bytes: of all bodies that are held at once.
        body_seconds: within which a body must have come.
        header_seconds: within which the head of a request must have come.
        request_seconds: within which an answer must be found, unless the request asks for less.
        connections: that are open at once.
        queue_images: that wait for the engine at most.
        image_pixels: that an encoded image may declare.
    """

    body_bytes: int = 64 << 20
    inflated_bytes: int = 256 << 20
    in_flight_bytes: int = 1 << 30
    body_seconds: float = 30.0
    header_seconds: float = 10.0
    request_seconds: float = 30.0
    connections: int = 1024
    queue_images: int = 1024
    image_pixels: int = 50_000_000

    def __post_init__(self) -> None:
        for limit in dataclasses.fields(self):
            value = getattr(self, limit.name)
            if not value > 0:
                raise SettingsError(f"{_option(limit.name)} {value:g}: must be above 0")


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Everything that decides how a daemon runs; paths become absolute.

    Attributes:
        model: path of the artifact; a reload reads it again.
        data_dir: where catalog, models and scores are kept; of one daemon alone.
        host: address to listen on; other than loopback needs a token.
        port: 0 takes a free one.
        token: that every request must bear; "" for none.
        pool_roots: under which pools may lie: absolute folders, or URL prefixes.
        allowed_hosts: names that a ``Host`` header may give beside the address itself.
        provider: as of ``lloss score``.
        batch_size: images a run of the engine; 0 for what was measured best.
        job_batch_size: of pools that are scored in the background; 0 for what keeps requests quick.
        threads: as of ``lloss score``.
        pending_seconds: for which an image that was handed out is kept from others.
        image_url: what a labeling tool fetches an image by, with ``{pool}`` and ``{id}``; "" for
            the daemon's own address.
        drain_seconds: that requests under way get after SIGTERM.
        limits: how much anybody may ask for.

    Raises:
        SettingsError: a value that cannot be.
    """

    model: Path
    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8000
    token: str = field(default="", repr=False)
    pool_roots: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    provider: str = "auto"
    batch_size: int = 0
    job_batch_size: int = 0
    threads: int = 0
    pending_seconds: float = 24 * 3600.0
    image_url: str = ""
    drain_seconds: float = 30.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        # Not resolved: a link to the model of the day is read anew by a reload.
        set_field(self, "model", Path(self.model).absolute())
        set_field(self, "data_dir", Path(self.data_dir).absolute())
        set_field(self, "pool_roots", tuple(map(_root, self.pool_roots)))
        set_field(self, "allowed_hosts", tuple(map(_name, self.allowed_hosts)))
        _check_token(self.token)
        if not self.token and not self.loopback:
            raise SettingsError(
                f"--host {self.host}: can be reached from other machines, so requests must bear a "
                "token: give --token-file FILE, or set LLOSS_TOKEN"
            )
        if not 0 <= self.port < 1 << 16:
            raise SettingsError(f"--port {self.port}: give one of 0 to 65535")
        for name in ("batch_size", "job_batch_size", "threads", "drain_seconds"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{_option(name)} {getattr(self, name):g}: must not be below 0")
        if not self.pending_seconds > 0:
            raise SettingsError(f"--pending {self.pending_seconds:g}: must be above 0")
        _check_image_url(self.image_url)

    @property
    def loopback(self) -> bool:
        """Whether the address can be reached from this machine alone."""
        return self.host == "localhost" or (
            _is_address(self.host) and ipaddress.ip_address(self.host).is_loopback
        )

    @property
    def everywhere(self) -> bool:
        """Whether it listens on all addresses of the machine."""
        return _is_address(self.host) and ipaddress.ip_address(self.host).is_unspecified

    @property
    def url(self) -> str:
        """By which it is reached from this machine."""
        host = "localhost" if self.everywhere else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def _option(name: str) -> str:
    return _OPTIONS.get(name, f"limit {name}")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _root(given: str) -> str:
    if "://" in given:
        return given
    path = Path(given).expanduser()
    if not path.is_dir():
        raise SettingsError(f"--pool-root {given}: is no folder; give one that exists")
    return str(path.resolve())


def _name(given: str) -> str:
    name = given.strip().lower().rstrip(".")
    address = _is_address(name.strip("[]"))
    if not name or (not address and not all(c.isalnum() or c in "-._" for c in name)):
        raise SettingsError(f"--allowed-host {given!r}: give a name or address, without a port")
    return name.strip("[]")


def _check_token(token: str) -> None:
    if not token:
        return
    if len(token) < TOKEN:
        raise SettingsError(
            f"the token has {len(token)} characters: it needs at least {TOKEN}, such as "
            "`openssl rand -hex 32` makes"
        )
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise SettingsError(
            "the token has spaces or other than ASCII characters: use letters and digits, such as "
            "`openssl rand -hex 32` makes"
        )


def _check_image_url(url: str) -> None:
    if not url:
        return
    if not url.startswith(("http://", "https://")):
        raise SettingsError(f"--image-url {url}: must begin with http:// or https://")
    for part in ("{pool}", "{id}"):
        if part not in url:
            raise SettingsError(f"--image-url {url}: must hold {part}, which is put in its place")
