"""Prometheus metrics of a run over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lloss.serve.scoring.telemetry import Telemetry
from prometheus_client import start_http_server

from lloss.errors import SettingsError

HOST = "127.0.0.1"
"""Who scrapes from elsewhere puts a proxy in front: nothing here asks who is asking."""


@contextmanager
def serve_metrics(telemetry: Telemetry, port: int | None) -> Iterator[None]:
    """Serve ``/metrics`` on the loopback interface while the block runs; no port, no server.

    Raises:
        SettingsError: the port is taken.
    """
    if port is None:
        yield
        return
    try:
        server, thread = start_http_server(port, HOST, telemetry.registry)
    except OSError as error:
        raise SettingsError(
            f"--metrics-port {port}: {error.strerror or error}; choose another port"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
