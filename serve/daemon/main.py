"""The process: a socket, an event loop, signals, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import uvicorn
from lloss.serve.daemon.api.health import reload_model
from lloss.serve.daemon.app import ShortWay, create_app
from lloss.serve.daemon.deps import Daemon
from lloss.serve.daemon.http.middleware import Gate
from lloss.serve.daemon.http.protocol import Protocol, protocol_of
from lloss.serve.daemon.observability import logs
from lloss.serve.daemon.services import memory_trim
from lloss.serve.daemon.settings import ServeSettings

from lloss.errors import LlossError, SettingsError

KEEP_ALIVE_SECONDS = 60
LINGER_SECONDS = 0.5
"""After the signal, before the socket closes: who comes meanwhile is told rather than reset."""

_FLUSH_SECONDS = 2.0
_CLOSE_SECONDS = 20.0
"""That jobs and models get to end: a reload may be building a TensorRT engine for minutes."""

_BACKLOG = 1024
_OTHER_FILES = 512
_SWITCH_SECONDS = 0.0003
"""After which a thread lets go of the interpreter's lock where others wait for it: lanes that are
done with a batch all wait while the event loop answers it, and with the usual 5 ms the cores stand
idle meanwhile. Shorter ones cost the loop of a small model more than they bring."""

_TICKS = 10


def serve(settings: ServeSettings, opened: Callable[[Daemon], None] = lambda daemon: None) -> None:
    """Serve until SIGTERM or SIGINT; what was accepted by then is answered first.

    Args:
        settings: ``port`` 0 takes a free one.
        opened: called when the daemon listens, before its model is loaded; its settings then name
            the real port.

    Raises:
        SettingsError: the address cannot be listened on, or the daemon cannot be opened.
        LlossError: the model cannot be loaded.
    """
    _allow_files(settings.limits.connections + _OTHER_FILES)
    sys.setswitchinterval(_SWITCH_SECONDS)
    memory_trim.limit_arenas()
    with _listening(settings) as sock:
        port = sock.getsockname()[1]
        daemon = Daemon(dataclasses.replace(settings, port=port))
        server = _Server(daemon)
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(server.run_until_told(sock, opened))


def _allow_files(count: int) -> None:
    """Raise the process's own limit: a connection that cannot be accepted cannot be told so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.contextmanager
def _listening(settings: ServeSettings) -> Iterator[socket.socket]:
    where = f"--host {settings.host} --port {settings.port}"
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SettingsError(f"{where}: cannot be listened on: {error.strerror}") from error
    with sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(_BACKLOG)  # here, since another may be bound that does not listen yet
        except OSError as error:
            raise SettingsError(
                f"{where}: cannot be listened on: {error.strerror}; choose another port, or end "
                "what holds it"
            ) from error
        yield sock


class _Server(uvicorn.Server):
    """uvicorn's server, told by us when to end."""

    def __init__(self, daemon: Daemon) -> None:
        limits = daemon.settings.limits
        config = uvicorn.Config(
            Gate(ShortWay(create_app(daemon)), daemon),
            http=protocol_of(limits, daemon.metrics),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        super().__init__(config)
        self.daemon = daemon
        self._failure: BaseException | None = None
        self._loading: threading.Thread | None = None
        self._reloads = threading.Lock()
        self._reloading = self._reload_again = False

    async def run_until_told(self, sock: socket.socket, opened: Callable[[Daemon], None]) -> None:
        """Listen, load the model, serve, drain, close."""
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        self._listen_to_signals()
        await self.startup([sock])
        opened(self.daemon)
        logs.event("listening", url=self.daemon.settings.url, pid=os.getpid())
        self._loading = threading.Thread(target=self._load, name="lloss-load", daemon=True)
        self._loading.start()
        await self.main_loop()
        await self.shutdown([sock])
        if self._failure is not None:
            self.daemon.close()
            raise self._failure

    def _load(self) -> None:
        """In a thread of its own: the socket answers, and tells that it is not ready."""
        try:
            self.daemon.start()
        except BaseException as error:
            self._failure = error
            self.should_exit = True
        else:
            # What is there by now stays: looking through it again and again costs as much as
            # all that a request does.
            gc.collect()
            gc.freeze()
            models = self.daemon.models
            note, level = models.note, logging.WARNING if models.note else logging.INFO
            logs.event("ready", level, model=models.sha256, provider=models.provider, note=note)

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_end, number)
        loop.add_signal_handler(signal.SIGHUP, self._told_to_reload)

    def _told_to_end(self, number: signal.Signals) -> None:
        if self.daemon.draining:
            logs.event("ended at once", logging.WARNING, signal=number.name)
            logs.leave(128 + number)  # what is on disk is whole at any moment
        self.daemon.draining = True
        self.should_exit = True
        logs.event("draining", signal=number.name)

    def _told_to_reload(self) -> None:
        """One reload at a time; those asked for meanwhile are one more after it."""
        with self._reloads:
            self._reload_again = True
            if self._reloading:
                return
            self._reloading = True
        try:
            threading.Thread(target=self._reload, name="lloss-reload", daemon=True).start()
        except RuntimeError as error:  # there are too many threads
            self._reloading = False
            logs.event("reload failed", logging.ERROR, error)

    def _reload(self) -> None:
        try:
            while self._another():
                self._reload_once()
        except BaseException:
            self._reloading = False  # whatever it was: else no later signal is heard
            raise

    def _another(self) -> bool:
        with self._reloads:
            self._reloading, self._reload_again = self._reload_again, False
            return self._reloading

    def _reload_once(self) -> None:
        try:
            reload_model(self.daemon)
        except LlossError as error:
            if not self.daemon.models.sha256:  # else it was logged
                logs.event("model refused", logging.ERROR, reason=str(error))
        except BaseException as error:
            logs.event("reload failed", logging.ERROR, error)

    async def on_tick(self, counter: int) -> bool:
        """Each tenth of a second: end connections whose time is over; whether to stop."""
        if counter % _TICKS == 0:
            self._check_connections()
        return await super().on_tick(counter)

    def _check_connections(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in list(self.server_state.connections):
            if isinstance(connection, Protocol):
                connection.check(now)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, finish what was accepted, close everything."""
        if self._failure is None:
            await asyncio.sleep(LINGER_SECONDS)
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        late = not await self._finished(self.daemon.settings.drain_seconds)
        if self._failure is not None:
            return
        if self._loading is not None and self._loading.is_alive():
            logs.event("ended", reason="told to while the model was loaded")
            logs.leave(0)  # a load cannot be interrupted, and nothing of it is worth waiting for
        try:
            await asyncio.wait_for(asyncio.to_thread(self.daemon.close), _CLOSE_SECONDS)
        except TimeoutError:
            reason = f"a job or a load of a model went on for {_CLOSE_SECONDS:g} seconds"
            logs.event("ended", logging.WARNING, reason=reason)
            logs.leave(0)  # as above
        logs.event("ended")
        if late:
            logs.leave(0)  # a route's thread may hang still

    async def _finished(self, seconds: float) -> bool:
        """Whether all requests ended in time; those that did not are cancelled."""
        until = asyncio.get_running_loop().time() + seconds
        tasks = set(self.server_state.tasks)
        if tasks:
            await self._watched(tasks, until)
        late = {task for task in self.server_state.tasks if not task.done()}
        for task in late:
            task.cancel()
        if late:
            logs.event("drained too late", logging.ERROR, cancelled=len(late), seconds=seconds)
            await asyncio.wait(late, timeout=_FLUSH_SECONDS)
        await self._sent(until)
        return not late

    async def _sent(self, until: float) -> None:
        """Wait a moment for the last bytes of replies, longer while slow clients take theirs."""
        now = asyncio.get_running_loop().time
        moment = now() + _FLUSH_SECONDS
        while (sending := self._sending()) or (self.server_state.connections and now() < moment):
            if now() >= max(until, moment):
                logs.event("replies cut off", logging.ERROR, connections=sending)
                return
            await asyncio.sleep(0.02)
            self._check_connections()

    def _sending(self) -> int:
        """Connections with bytes that their clients have not taken yet."""
        connections = self.server_state.connections
        return sum(bool(one.transport.get_write_buffer_size()) for one in connections)

    async def _watched(self, tasks: set[asyncio.Task[None]], until: float) -> None:
        """Wait for requests; meanwhile connections keep their deadlines."""
        while tasks and (left := until - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(tasks, timeout=min(1.0, left))
            self._check_connections()
            tasks = set(self.server_state.tasks)
