"""The daemon's process: it listens, loads the model, serves, and shuts down in order."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable

from lloss.serve.daemon.api.model import reload_model
from lloss.serve.daemon.app import InferShortcut, create_app
from lloss.serve.daemon.daemon import Daemon
from lloss.serve.daemon.http.middleware import RequestMiddleware
from lloss.serve.daemon.http.server import HttpServer, listening
from lloss.serve.daemon.observability import logs
from lloss.serve.daemon.services import memory_trim
from lloss.serve.daemon.settings import ServeSettings

from lloss.errors import LlossError

_LINGER_SECONDS = 0.5
"""Between the signal and the closing of the socket: new clients get a reply rather than a reset."""

_CANCEL_SECONDS = 2.0
_CLOSE_SECONDS = 20.0
"""For jobs and models to end: a reload may be building a TensorRT engine for minutes."""

_SWITCH_SECONDS = 0.0003
"""Time after which a thread releases the interpreter lock. Lanes that finish a batch wait
while the event loop answers it, and with the usual 5 ms the cores are idle for as long. Less costs
the event loop of a small model more than it gains."""


def serve(settings: ServeSettings, opened: Callable[[Daemon], None] = lambda daemon: None) -> None:
    """Serve until SIGTERM or SIGINT, then answer what was accepted.

    A signal that the process ignores, as a shell makes background jobs ignore Ctrl-C, stays so.

    Args:
        settings: ``port`` 0 takes a free one.
        opened: called when the daemon listens, before its model is loaded; its settings then name
            the real port.

    Raises:
        SettingsError: the address cannot be used, or the daemon cannot be opened.
        LlossError: the model cannot be loaded.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    memory_trim.limit_arenas()
    with listening(settings) as sock:
        daemon = Daemon(dataclasses.replace(settings, port=sock.getsockname()[1]))
        process = _Process(daemon)
        with asyncio.Runner(loop_factory=process.server.config.get_loop_factory()) as runner:
            runner.run(process.run(sock, opened))


class _Process:
    """What happens to a daemon between its first and its last moment."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self._middleware = RequestMiddleware(InferShortcut(create_app(daemon)), daemon)
        self.server = HttpServer(self._middleware, daemon.settings)
        self._failure: BaseException | None = None
        self._reload_wanted = threading.Event()

    async def run(self, sock: socket.socket, opened: Callable[[Daemon], None]) -> None:
        """Serve until a signal or until the model cannot be loaded."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._terminate, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload_wanted.set)
        serving = asyncio.create_task(self.server.serve(sockets=[sock]))
        opened(self.daemon)
        logs.event("listening", url=self.daemon.settings.url, pid=os.getpid())
        threading.Thread(target=self._keep_model, name="lloss-model", daemon=True).start()
        await serving
        late = await self._end_late_requests()
        if self._failure is not None:
            self.daemon.close()
            raise self._failure
        await self._close()
        logs.event("stopped")
        if late:
            logs.leave(0)  # a route's thread may hang still

    def _keep_model(self) -> None:
        """Load the model, then reload it once for all signals since the last reload began.

        Beside the event loop: until then the daemon answers, and says that it is not ready.
        """
        try:
            self.daemon.start()
        except BaseException as error:
            self._failure = error
            self.server.should_exit = True
            return
        # Objects made so far stay: scanning them again and again costs as much as a request.
        gc.collect()
        gc.freeze()
        model = self.daemon.models.current
        level = logging.WARNING if model.note else logging.INFO
        logs.event("ready", level, model=model.sha256, provider=model.provider, note=model.note)
        while self._reload_wanted.wait():
            self._reload_wanted.clear()
            try:
                reload_model(self.daemon)
            except LlossError:
                pass  # it was logged
            except BaseException as error:
                logs.event("reload_failed", logging.ERROR, error)

    def _terminate(self, number: signal.Signals) -> None:
        if self.daemon.draining:
            logs.event("stopped", logging.WARNING, reason=f"second {number.name}")
            logs.leave(128 + number)  # what is on disk is complete at any moment
        self.daemon.draining = True
        logs.event("shutting_down", signal=number.name)
        loop = asyncio.get_running_loop()
        loop.call_later(_LINGER_SECONDS, setattr, self.server, "should_exit", True)

    async def _end_late_requests(self) -> bool:
        """Let requests that uvicorn cancelled after --drain reply; return whether there are any."""
        if late := [task for task in self.server.server_state.tasks if not task.done()]:
            await asyncio.wait(late, timeout=_CANCEL_SECONDS)
        cancelled = self._middleware.cancelled
        if cancelled:
            seconds = self.daemon.settings.drain_seconds
            logs.event("drain_expired", logging.ERROR, cancelled=cancelled, seconds=seconds)
            await asyncio.sleep(0.1)  # their last bytes go out
        return bool(cancelled)

    async def _close(self) -> None:
        if not self.daemon.models.sha256:
            logs.event("stopped", reason="signal while the model was loading")
            logs.leave(0)  # a load cannot be interrupted, and nothing of it is worth waiting for
        try:
            await asyncio.wait_for(asyncio.to_thread(self.daemon.close), _CLOSE_SECONDS)
        except TimeoutError:
            reason = f"a job or a model did not close within {_CLOSE_SECONDS:g} seconds"
            logs.event("stopped", logging.WARNING, reason=reason)
            logs.leave(0)
