"""Log lines on standard error, each a JSON object: one for every request and every event."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any, NoReturn

LOG = logging.getLogger("lloss")

_STDERR = 2
_FIELDS = "lloss_fields"
_PAUSE_SECONDS = 0.02
_RETRY_SECONDS = 0.2
_FLUSH_SECONDS = 1.0
_MAX_WAITING = 10_000


def configure(file: int = _STDERR) -> None:
    """Write all log records and warnings, also those of libraries, to a file descriptor."""
    root = logging.getLogger()
    root.handlers[:] = [LineWriter(file)]
    root.setLevel(logging.WARNING)
    LOG.setLevel(logging.INFO)
    logging.captureWarnings(True)
    # Values of a record that no line has, and that take most of the time to make it.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    # uvicorn warns of every malformed request, which lets any client fill the log; the middleware
    # and the process log its errors.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)


def event(
    name: str, level: int = logging.INFO, error: BaseException | None = None, **fields: Any
) -> None:
    """Log an event with a fixed name in snake_case; what varies goes into the fields."""
    LOG.log(level, name, exc_info=error, extra={_FIELDS: fields})


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

    def __init__(self, file: int) -> None:
        super().__init__()
        self._file = file
        self._waiting: SimpleQueue[logging.LogRecord | threading.Event] = SimpleQueue()
        self._dropped = 0
        self.setFormatter(JsonFormatter())
        threading.Thread(target=self._run, name="lloss-log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record; never fail and never wait."""
        if self._waiting.qsize() < _MAX_WAITING:
            self._waiting.put(record)
        else:
            self._dropped += 1

    def flush(self) -> None:
        """Wait until all lines are written, at most a second."""
        written = threading.Event()
        self._waiting.put(written)
        written.wait(_FLUSH_SECONDS)

    def _run(self) -> None:
        reported = 0
        while True:
            taken = [self._waiting.get()]
            time.sleep(_PAUSE_SECONDS)
            taken += [self._waiting.get() for _ in range(self._waiting.qsize())]
            lines = [self._line(one) for one in taken if isinstance(one, logging.LogRecord)]
            if count := self._dropped - reported:
                reported += count
                lines.append(json.dumps({"event": "log_lines_dropped", "count": count}) + "\n")
            self._write("".join(lines).encode("ascii"))
            for one in taken:
                if isinstance(one, threading.Event):
                    one.set()

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record) + "\n"
        except Exception:
            self.handleError(record)
            return ""

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._file, data) :]
            except OSError:  # a full disk has space again later
                time.sleep(_RETRY_SECONDS)


class JsonFormatter(logging.Formatter):
    """A JSON object a line; ASCII, so that no character of a path can begin another line."""

    _encode = json.JSONEncoder(default=str).encode

    def format(self, record: logging.LogRecord) -> str:
        """See ``logging.Formatter``."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        values: dict[str, Any] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        values |= getattr(record, _FIELDS, {"logger": record.name})
        if record.exc_info:
            values["traceback"] = self.formatException(record.exc_info)
        return self._encode(values)
