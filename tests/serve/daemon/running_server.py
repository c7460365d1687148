"""The daemon's HTTP server in a thread of a test."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from pathlib import Path
from typing import Any

from lloss.serve.daemon.http.server import HttpServer
from lloss.serve.daemon.settings import ServeSettings

from .waiting import until


class RunningServer:
    """An application on a free port of loopback."""

    def __init__(self, app: Any, settings: ServeSettings | None = None) -> None:
        settings = settings or ServeSettings(model=Path("m"), data_dir=Path("d"))
        self.server = HttpServer(app, settings)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        until(lambda: self.server.started)

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            factory = self.server.config.get_loop_factory()
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(self.server.serve(sockets=[self.socket]))

    def close(self) -> None:
        """Let the thread end by itself, a moment later."""
        self.server.config.timeout_graceful_shutdown = 1
        self.server.should_exit = True
