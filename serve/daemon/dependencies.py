"""FastAPI dependencies of the routes: the daemon, and a check of query parameters."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request
from lloss.serve.daemon.daemon import Daemon
from lloss.serve.daemon.errors import RequestError


def daemon_of(request: Request) -> Daemon:
    """Return the daemon that serves a request."""
    return cast(Daemon, request.app.state.daemon)


async def _daemon(request: Request) -> Daemon:
    """Stay in the event loop: FastAPI's threads may all be busy."""
    return daemon_of(request)


DaemonDep = Annotated[Daemon, Depends(_daemon)]
"""The daemon, for routes that take it as a parameter."""


def base_url_of(daemon: Daemon, request: Request) -> str:
    """Return the URL that links to the daemon begin with, without a slash at the end."""
    return daemon.settings.public_url or str(request.base_url).rstrip("/")


async def reject_unknown_parameters(request: Request) -> None:
    """Refuse a query parameter that the route does not have, rather than ignore it.

    Raises:
        RequestError: 422.
    """
    known = [field.alias for field in request.scope["route"].dependant.query_params]
    unknown = next((name for name in request.query_params if name not in known), None)
    if unknown is not None:
        listed = ", ".join(known) or "none"
        raise RequestError(422, f"unknown query parameter {unknown[:100]!r} (known: {listed})")
