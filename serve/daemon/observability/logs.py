"""Log lines on standard error: one for every request and one for every event."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, NoReturn, TextIO

Format = Literal["json", "text"]

LOG = logging.getLogger("lloss")

_FIELDS = "lloss_fields"
_PAUSE_SECONDS = 0.02
_RETRY_SECONDS = 0.2
_FLUSH_SECONDS = 1.0
_MAX_WAITING = 10_000
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/+{}")


def configure(format: Format = "json", stream: TextIO | None = None) -> None:
    """Send all log records and warnings, also those of libraries, through one handler.

    Args:
        format: "json" for an object a line, "text" for ``time LEVEL event name=value ...``.
        stream: standard error if None.
    """
    root = logging.getLogger()
    formatter = JsonFormatter() if format == "json" else TextFormatter()
    root.handlers[:] = [LineWriter(stream or sys.stderr, formatter)]
    root.setLevel(logging.WARNING)
    LOG.setLevel(logging.INFO)
    logging.captureWarnings(True)
    # Values of a record that no line has, and that take half the time to make it.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # uvicorn warns of every malformed request, which lets any client fill the log; the middleware
    # and the process log its errors.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)


def event(
    name: str, level: int = logging.INFO, error: BaseException | None = None, **fields: Any
) -> None:
    """Log an event.

    Args:
        name: fixed, in snake_case; what varies goes into the fields.
        level: of the standard library.
        error: whose traceback the line gets.
        fields: JSON values.
    """
    if LOG.isEnabledFor(level):
        trace = (type(error), error, error.__traceback__) if error is not None else None
        # Not LOG.log, which looks for the caller's line: that costs more than all the rest.
        record = LOG.makeRecord(LOG.name, level, "", 0, name, (), trace, extra={_FIELDS: fields})
        LOG.handle(record)


def flush() -> None:
    """Write waiting lines; give up after a second."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def leave(code: int) -> NoReturn:
    """Write waiting lines, then end the process at once, whatever its threads do."""
    flush()
    os._exit(code)


class LineWriter(logging.Handler):
    """Formats and writes records in a thread of its own, those of a moment together.

    A write releases the interpreter lock, and beside busy threads the event loop waits long to get
    it back. A full disk or a pipe that nobody reads delays nobody: lines wait, and beyond 10,000
    they are dropped and counted.
    """

    def __init__(self, stream: TextIO, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._send = _sender(stream)
        self._records: list[logging.LogRecord] = []
        self._dropped = 0
        self._guard = threading.Lock()
        self._due, self._idle = threading.Event(), threading.Event()
        self._idle.set()
        threading.Thread(target=self._run, name="lloss-log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record; never fail and never wait."""
        with self._guard:
            if len(self._records) < _MAX_WAITING:
                self._records.append(record)
            else:
                self._dropped += 1
            self._idle.clear()
        if not self._due.is_set():
            self._due.set()

    def flush(self) -> None:
        """Wait until all lines are written, at most a second."""
        self._idle.wait(_FLUSH_SECONDS)

    def _run(self) -> None:
        while self._due.wait():
            time.sleep(_PAUSE_SECONDS)
            self._due.clear()
            while (waiting := self._take()) is not None:
                self._write(waiting)

    def _take(self) -> bytes | None:
        """Format all waiting records; None if there are none."""
        with self._guard:
            records, self._records = self._records, []
            dropped, self._dropped = self._dropped, 0
            if not records:
                self._idle.set()
                return None
        lines = []
        for record in records:
            try:
                lines.append(self.format(record) + "\n")
            except Exception:
                self.handleError(record)
        if dropped:
            lines.append(json.dumps({"event": "log_lines_dropped", "count": dropped}) + "\n")
        return "".join(lines).encode(errors="backslashreplace")

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[self._send(data) :]
            except (OSError, ValueError):  # a full disk has space again later
                time.sleep(_RETRY_SECONDS)


def _sender(stream: TextIO) -> Callable[[bytes], int]:
    """Return a function that writes bytes and returns how many the stream took."""
    try:
        # Past Python's buffer, which does not say how much of a failed write it kept.
        file = stream.fileno()
    except (OSError, AttributeError):
        return lambda data: stream.write(data.decode()) and len(data)
    return lambda data: os.write(file, data)


class Quota:
    """Lets a few lines a minute through and counts the rest, so that no client fills a disk."""

    def __init__(self, lines: int = 20, seconds: float = 60.0) -> None:
        self._lines, self._seconds = lines, seconds
        self._since, self._taken, self._dropped = float("-inf"), 0, 0

    def take(self) -> int | None:
        """Return how many lines were dropped before this one; None to drop this one too."""
        now = time.monotonic()
        if now - self._since >= self._seconds:
            self._since, self._taken = now, 0
        if self._taken >= self._lines:
            self._dropped += 1
            return None
        self._taken += 1
        dropped, self._dropped = self._dropped, 0
        return dropped


class JsonFormatter(logging.Formatter):
    """A JSON object a line; ASCII, so that no character of a path can begin another line."""

    _encode = json.JSONEncoder(default=str).encode

    def format(self, record: logging.LogRecord) -> str:
        """See ``logging.Formatter``."""
        return self._encode(self._values(record))

    def _values(self, record: logging.LogRecord) -> dict[str, Any]:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        values: dict[str, Any] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        values |= getattr(record, _FIELDS, {"logger": record.name})
        if record.exc_info:
            values["traceback"] = self.formatException(record.exc_info)
        return values


class TextFormatter(JsonFormatter):
    """``time LEVEL event name=value ...``; values other than plain words as JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """See ``logging.Formatter``."""
        values = self._values(record)
        trace = values.pop("traceback", "")
        event = values.pop("event")
        plain = event.isprintable() and event.isascii()
        words = [values.pop("time"), values.pop("level").upper()]
        words.append(event if plain else json.dumps(event))
        words += [f"{name}={self._word(value)}" for name, value in values.items()]
        return " ".join(words) + (f"\n{trace}" if trace else "")

    def _word(self, value: Any) -> str:
        plain = isinstance(value, str) and value and _PLAIN.issuperset(value)
        return value if plain else self._encode(value)
