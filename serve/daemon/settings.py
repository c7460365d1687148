"""The settings of ``lloss serve``."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path

from lloss.errors import SettingsError

_OPTIONS = {
    "body_bytes": "--max-body",
    "queue_images": "--queue",
    "request_seconds": "--timeout",
    "drain_seconds": "--drain",
    "batch_size": "--batch-size",
    "job_batch_size": "--job-batch-size",
    "threads": "--threads",
}
"""The command line's names; other limits can be set from Python only."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What clients may send.

    Raises:
        SettingsError: a limit that is not above 0.
    """

    body_bytes: int = 64 << 20
    in_flight_bytes: int = 1 << 30  # all bodies at once
    body_seconds: float = 30.0  # within which a body must arrive
    request_seconds: float = 30.0  # within which a request is answered, unless it asks for less
    connections: int = 1024
    queue_images: int = 1024  # images that may wait for the engine
    image_pixels: int = 50_000_000  # pixels that an encoded image may declare

    def __post_init__(self) -> None:
        for limit in dataclasses.fields(self):
            value = getattr(self, limit.name)
            if not value > 0:
                raise SettingsError(f"{_option(limit.name)} {value:g}: must be above 0")


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """How a daemon runs; paths become absolute.

    Raises:
        SettingsError: an invalid value.
    """

    model: Path  # a reload reads it again
    data_dir: Path  # for catalog, models and scores; one daemon uses it
    host: str = "127.0.0.1"  # other than loopback needs a token
    port: int = 8000  # 0 takes a free one
    token: str = field(default="", repr=False)  # every request must send it; "" for none
    pool_roots: tuple[str, ...] = ()  # folders or URL prefixes that pools must be under
    allowed_hosts: tuple[str, ...] = ()  # names for ``Host`` besides the address itself
    public_url: str = ""  # the proxy's URL; its host is one of ``allowed_hosts``
    provider: str = "auto"
    batch_size: int = 0  # 0 for the fastest measured
    job_batch_size: int = 0  # images per batch of a job; 0 for what keeps requests fast
    threads: int = 0
    pending_seconds: float = 24 * 3600.0  # how long an image stays handed out to one labeler
    image_url: str = ""  # for labeling tools, with {pool} and {id}; "" for the daemon's own
    drain_seconds: float = 30.0  # time for running requests after SIGTERM
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        hosts = tuple(map(_host_name, self.allowed_hosts))
        public_url = self.public_url
        if public_url:
            public_url, host = _base_url(public_url)
            hosts += (host,)
        for name, value in {
            "model": Path(self.model).absolute(),  # not resolved: a reload follows a link
            "data_dir": Path(self.data_dir).absolute(),
            "pool_roots": tuple(map(_pool_root, self.pool_roots)),
            "allowed_hosts": hosts,
            "public_url": public_url,
        }.items():
            object.__setattr__(self, name, value)
        if self.token:
            _check_token(self.token)
        elif not self.loopback:
            raise SettingsError(
                f"--host {self.host}: other machines reach it, so requests need a token: give "
                "--token-file FILE, or set LLOSS_TOKEN"
            )
        if not 0 <= self.port < 1 << 16:
            raise SettingsError(f"--port {self.port}: give one of 0 to 65535")
        for name in ("batch_size", "job_batch_size", "threads", "drain_seconds"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{_option(name)} {getattr(self, name):g}: must not be below 0")
        if not self.pending_seconds > 0:
            raise SettingsError(f"--pending {self.pending_seconds:g}: must be above 0")
        if self.image_url:
            _check_image_url(self.image_url)

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the address."""
        address = parse_address(self.host)
        return self.host == "localhost" or (address is not None and address.is_loopback)

    @property
    def everywhere(self) -> bool:
        """Whether it listens on all addresses of the machine."""
        address = parse_address(self.host)
        return address is not None and address.is_unspecified

    @property
    def url(self) -> str:
        """URL for clients on this machine."""
        host = "localhost" if self.everywhere else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def _option(name: str) -> str:
    return _OPTIONS.get(name, f"limit {name}")


def parse_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that a host is, or None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _pool_root(given: str) -> str:
    if "://" in given:
        return given
    path = Path(given).expanduser()
    if not path.is_dir():
        raise SettingsError(f"--pool-root {given}: is not a folder; give one that exists")
    return str(path.resolve())


def _host_name(given: str) -> str:
    name = given.strip().lower().rstrip(".")
    bare = name.strip("[]")
    if parse_address(bare) is None and not re.fullmatch(r"[\w.-]+", name):
        raise SettingsError(f"--allowed-host {given!r}: give a name or address, without a port")
    return bare


def _base_url(given: str) -> tuple[str, str]:
    """Return a URL without a slash at its end, and its host."""
    url = given.strip().lower()
    parts = re.fullmatch(r"https?://([\w.-]+|\[[\da-f:.]+\])(:\d+)?/?", url)
    if parts is None:
        raise SettingsError(
            f"--public-url {given}: give https://NAME or https://NAME:PORT, without a path"
        )
    return url.rstrip("/"), _host_name(parts[1])


def _check_token(token: str) -> None:
    if not re.fullmatch("[!-~]{16,}", token):
        raise SettingsError(
            "the token needs at least 16 ASCII characters without spaces: use letters and digits, "
            "such as `openssl rand -hex 32` makes"
        )


def _check_image_url(url: str) -> None:
    if not (url.startswith(("http://", "https://")) and "{pool}" in url and "{id}" in url):
        raise SettingsError(
            f"--image-url {url}: must begin with http:// or https://, and contain {{pool}} and "
            "{id}, which are replaced"
        )
