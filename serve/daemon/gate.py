"""What stands before every route: access, caps, deadlines, request ids, logs, headers."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from .core import Daemon


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, daemon: Daemon) -> None:
        self.app, self.daemon = app, daemon

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        raise NotImplementedError
