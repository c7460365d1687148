"""One line for every request and event, on standard error."""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, NoReturn, TextIO

Format = Literal["json", "text"]

LOG = logging.getLogger("lloss")
_ROOT = logging.getLogger()
Line = Callable[[dict[str, Any]], str]

_FIELDS = "lloss_fields"
_MAY_WAIT = "lloss_may_wait"
_PAUSE = 0.05
"""Seconds that lines wait for others."""
_AGAIN = 0.2
"""Seconds after which it is tried again to write what could not be written."""
_PATIENCE = 1.0
"""Seconds that the end of the process waits for its last lines."""
_HELD = 10_000
"""Lines that wait at most, such as behind a pipe that nobody empties."""
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/+{}")


def configure(format: Format = "json", stream: TextIO | None = None) -> None:
    """Send all that is logged through one handler: ours, uvicorn's, and warnings.

    Args:
        format: a JSON object a line, or ``time LEVEL event name=value ...`` for people.
        stream: standard error if None.
    """
    line = _json if format == "json" else _text
    _ROOT.handlers[:] = [Later(stream or sys.stderr, line)]
    _ROOT.setLevel(logging.WARNING)
    LOG.setLevel(logging.INFO)
    logging.captureWarnings(True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    # Of a request that is no HTTP uvicorn warns each time; the server does it, within a quota.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


class Later(logging.Handler):
    """Writes lines in a thread of its own, those of requests a moment later, many at once.

    Whoever writes lets go of the interpreter's lock, and beside busy threads waits long to get it
    back: line by line that takes an event loop more time than all else of a request. And a pipe
    that nobody empties, or a disk that is full, is no reason to fail or to stand still for whoever
    logs: lines are kept meanwhile, and counted where they become too many.

    Args:
        stream: to write to.
        line: makes a line of what it tells.
    """

    def __init__(self, stream: TextIO, line: Line) -> None:
        super().__init__()
        self.line = line
        self.setFormatter(_Lines(line))
        self._send = _sender(stream)
        self._lines: deque[str] = deque()
        self._put = self._done = self._dropped = self._told = 0
        self._left, self._leaving = b"", 0
        self._due, self._now = threading.Event(), threading.Event()
        self._moved = threading.Condition()
        threading.Thread(target=self._write, name="lloss-log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """See ``logging.Handler``; never fails and never waits."""
        try:
            line = self.format(record)
        except Exception as error:  # of somebody's __str__
            where = f"{record.pathname}:{record.lineno}"
            line = json.dumps({"event": "log line broken", "of": where, "reason": repr(error)})
        self.put(line, not hasattr(record, _MAY_WAIT))

    def put(self, line: str, now: bool) -> None:
        """Have a line written next, or a moment later with others."""
        if len(self._lines) >= _HELD:  # nobody reads what we write
            self._dropped += 1
            return
        self._lines.append(line)
        self._put += 1
        if now:
            self._now.set()
        if not self._due.is_set():
            self._due.set()

    def flush(self) -> None:
        """Wait until all that there is has been written, but not for ever."""
        until = self._put
        self._now.set()
        self._due.set()
        with self._moved:
            self._moved.wait_for(lambda: self._done >= until, _PATIENCE)

    def _write(self) -> None:
        while self._due.wait():
            self._now.wait(_PAUSE)
            self._due.clear()
            self._now.clear()
            try:
                self._write_all()
            except Exception:  # nobody is left to be told; perhaps the disk has room again soon
                self._now.wait(_AGAIN)
                self._due.set()

    def _write_all(self) -> None:
        """What was begun first: a line that was half written is not written twice."""
        while self._left or self._lines or self._told < self._dropped:
            if not self._left:
                lines = [self._lines.popleft() for _ in range(len(self._lines))]
                self._leaving = len(lines)
                if dropped := self._dropped - self._told:
                    lines.append(json.dumps({"event": "log lines dropped", "count": dropped}))
                    self._told += dropped
                self._left = "\n".join([*lines, ""]).encode(errors="backslashreplace")
            while self._left:
                self._left = self._left[self._send(self._left) :]
            with self._moved:
                self._done += self._leaving
                self._moved.notify_all()


def _sender(stream: TextIO) -> Callable[[bytes], int]:
    """Writes to a stream what it takes, and returns how many bytes that was."""
    try:
        # Past its buffers, which keep a part of what they could not write and do not tell which.
        return functools.partial(os.write, stream.fileno())
    except (OSError, AttributeError):  # no file, or none at all
        pass

    def send(data: bytes) -> int:
        stream.write(data.decode())
        stream.flush()
        return len(data)

    return send


def flush() -> None:
    """Write what was logged before anything else is told on standard error."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def leave(code: int) -> NoReturn:
    """End the process at once, whatever its threads do; what was logged is written first."""
    flush()
    os._exit(code)


def event(
    name: str,
    level: int = logging.INFO,
    error: BaseException | None = None,
    may_wait: bool = False,
    **fields: Any,
) -> None:
    """Log that something happened.

    Args:
        name: what, in a few words that never vary.
        level: of the standard library.
        error: its traceback is added.
        may_wait: whether it may be written with others a moment later, rather than next.
        fields: values of JSON.
    """
    if not LOG.isEnabledFor(level):
        return
    if may_wait and error is None and (alone := _alone()) is not None:
        told = {"time": _time(time.time()), "level": _level(level), "event": name, **fields}
        alone.put(alone.line(told), now=False)
    else:
        extra = {_FIELDS: fields, _MAY_WAIT: True} if may_wait else {_FIELDS: fields}
        LOG.log(level, name, extra=extra, exc_info=error)


def _alone() -> Later | None:
    """Our handler, where nobody else listens.

    Then a line of a request can go there past the records of ``logging``, which take longer than
    all else of it.
    """
    handlers = _ROOT.handlers
    only = handlers[0] if len(handlers) == 1 and not LOG.handlers else None
    return only if isinstance(only, Later) else None


class Quota:
    """Lets a few lines a minute through and counts the rest, so that no client fills a disk."""

    def __init__(self, lines: int = 20, seconds: float = 60.0) -> None:
        self._lines, self._seconds = lines, seconds
        self._since, self._taken, self._dropped = float("-inf"), 0, 0

    def take(self) -> int | None:
        """How many lines were dropped since the last that was not; None to drop this one."""
        now = time.monotonic()
        if now - self._since >= self._seconds:
            self._since, self._taken = now, 0
        if self._taken >= self._lines:
            self._dropped += 1
            return None
        self._taken += 1
        dropped, self._dropped = self._dropped, 0
        return dropped


def _told(record: logging.LogRecord) -> dict[str, Any]:
    told: dict[str, Any] = {
        "time": _time(record.created),
        "level": _level(record.levelno),
        "event": record.getMessage(),
    }
    fields = getattr(record, _FIELDS, None)
    if fields is None:
        told["logger"] = record.name
    else:
        told.update(fields)
    if record.exc_info:
        told["traceback"] = logging.Formatter().formatException(record.exc_info)
    return told


def _time(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _level(number: int) -> str:
    return logging.getLevelName(number).lower()


class _Lines(logging.Formatter):
    """Makes the same line of a record and of what it would tell."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    def format(self, record: logging.LogRecord) -> str:
        """See ``logging.Formatter``."""
        return self._line(_told(record))


_json: Line = json.JSONEncoder(default=str).encode
"""A JSON object a line; ASCII, so that no character of a path can begin another line."""


def _text(told: dict[str, Any]) -> str:
    """``time LEVEL event name=value ...``; values that are no plain word as JSON writes them."""
    traceback = told.pop("traceback", "")
    head = f"{told.pop('time')} {told.pop('level').upper()} {_line(told.pop('event'))}"
    text = " ".join([head, *(f"{name}={_word(value)}" for name, value in told.items())])
    return f"{text}\n{traceback}" if traceback else text


def _line(text: str) -> str:
    return text if text.isprintable() and text.isascii() else json.dumps(text)


def _word(value: Any) -> str:
    if isinstance(value, str) and value and _PLAIN.issuperset(value):
        return value
    return json.dumps(value, default=str)
