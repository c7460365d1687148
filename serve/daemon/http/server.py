"""The listening socket, and uvicorn's server on it."""

from __future__ import annotations

import contextlib
import math
import resource
import socket
from collections.abc import Generator, Iterator

import uvicorn
from lloss.serve.daemon.settings import ServeSettings
from starlette.types import ASGIApp

from lloss.errors import SettingsError

_KEEP_ALIVE_SECONDS = 60
_BACKLOG = 1024
_OTHER_FILES = 512


class HttpServer(uvicorn.Server):
    """uvicorn's server with our limits; signals are left to its caller."""

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
                limit_concurrency=settings.limits.connections + 1,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the process's signal handlers as they are."""
        yield


@contextlib.contextmanager
def listening(settings: ServeSettings) -> Iterator[socket.socket]:
    """Listen on the host and port of the settings.

    Raises:
        SettingsError: the address does not exist or is in use.
    """
    _allow_files(settings.limits.connections + _OTHER_FILES)
    with contextlib.ExitStack() as stack:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            sock = stack.enter_context(socket.socket(family, kind, protocol))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(_BACKLOG)  # here, since bind succeeds while another has bound only
        except OSError as error:
            raise SettingsError(
                f"--host {settings.host} --port {settings.port}: cannot listen: {error.strerror}; "
                "choose another address or port, or end the process that holds it"
            ) from error
        yield sock


def _allow_files(count: int) -> None:
    """Raise the process's limit of open files, so that connections up to their limit fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
