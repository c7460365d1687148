"""One line for every request and event, on standard error."""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

Format = Literal["json", "text"]

LOG = logging.getLogger("lloss")

_FIELDS = "lloss_fields"
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/+{}")


def configure(format: Format = "json", stream: TextIO | None = None) -> None:
    """Send all that is logged through one handler: ours, uvicorn's, and warnings.

    Args:
        format: a JSON object a line, or ``time LEVEL event name=value ...`` for people.
        stream: standard error if None.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Json() if format == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    LOG.setLevel(logging.INFO)
    logging.captureWarnings(True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    # Of a request that is no HTTP uvicorn warns each time; the server does it, within a quota.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


def event(
    name: str, level: int = logging.INFO, error: BaseException | None = None, **fields: Any
) -> None:
    """Log that something happened.

    Args:
        name: what, in a few words that never vary.
        level: of the standard library.
        error: its traceback is added.
        fields: values of JSON.
    """
    if LOG.isEnabledFor(level):
        LOG.log(level, name, extra={_FIELDS: fields}, exc_info=error)


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
    moment = datetime.fromtimestamp(record.created, UTC)
    told: dict[str, Any] = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
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


class _Json(logging.Formatter):
    """A JSON object a line; ASCII, so that no character of a path can begin another line."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_told(record), default=str)


class _Text(logging.Formatter):
    """``time LEVEL event name=value ...``; values that are no plain word as JSON writes them."""

    def format(self, record: logging.LogRecord) -> str:
        told = _told(record)
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
