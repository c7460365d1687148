"""What the page routes share, one a daemon."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import anyio
from fastapi import Request
from lloss.serve.daemon.deps import Daemon, daemon_of
from lloss.serve.daemon.ui.views import Viewer

AT_ONCE = 4
"""Images that are read and decoded for people at once: scoring has the other cores."""

_MAKING = threading.Lock()


@dataclass(frozen=True)
class Viewing:
    """A daemon, and what looks at it.

    Attributes:
        daemon: that is looked at.
        viewer: what looks.
        limiter: of the threads that read and decode images for pages.
    """

    daemon: Daemon
    viewer: Viewer
    limiter: anyio.CapacityLimiter


def viewing_of(request: Request) -> Viewing:
    """That of the application; made when it is first asked for."""
    state = request.app.state
    with _MAKING:
        if not hasattr(state, "viewing"):
            daemon = daemon_of(request)
            state.viewing = Viewing(daemon, Viewer(daemon), anyio.CapacityLimiter(AT_ONCE))
        found: Viewing = state.viewing
        return found
