"""What ``lloss serve`` was told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


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


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Everything that decides how a daemon runs.

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
    """

    model: Path
    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8000
    token: str = ""
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
