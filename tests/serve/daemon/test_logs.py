"""Lines of the log."""

from __future__ import annotations

import io
import json
import logging
import re
import threading
import time
import warnings
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from lloss.serve.daemon import logs
from lloss.serve.daemon.logs import Quota

Make = Callable[..., Any]

NASTY = 'a\nlevel=error\r\t"\x1b[31m\u2028\x85\ud800é\\'


def test_a_line_is_an_object_whatever_it_holds(log: io.StringIO) -> None:
    logs.event(NASTY, path=NASTY, folder=object, **{"odd name": 1})
    (line,) = log.getvalue().splitlines()
    told = json.loads(line)
    assert line.isascii() and told["event"] == told["path"] == NASTY
    assert datetime.fromisoformat(told["time"]).utcoffset().total_seconds() == 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told["time"])


def test_text_is_one_line_too(log: io.StringIO) -> None:
    logs.configure("text", log)
    logs.event("request", path=NASTY, route="/v1/pools/{name}", status=200)
    (line,) = log.getvalue().splitlines()
    assert line.isascii() and " INFO request path=" in line
    assert line.endswith(" route=/v1/pools/{name} status=200")


def test_what_others_log_goes_the_same_way(log: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").error("broken %s", "pipe\nforged")
    warnings.warn("odd", stacklevel=1)
    logging.getLogger("uvicorn.access").info("GET /?token=secret")
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["logger"] for line in lines] == ["uvicorn.error", "py.warnings"]
    assert lines[0]["event"] == "broken pipe\nforged"


def test_a_traceback_is_inside_the_line(log: io.StringIO) -> None:
    try:
        raise ValueError("bad")
    except ValueError as error:
        logs.event("failed", logging.ERROR, error, request_id="7")
    (line,) = log.getvalue().splitlines()
    told = json.loads(line)
    assert told["level"] == "error" and told["traceback"].endswith("ValueError: bad")


def test_a_quota_counts_what_it_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    quota = Quota(lines=2, seconds=60)
    assert [quota.take() for _ in range(5)] == [0, 0, None, None, None]
    now[0] = 61
    assert [quota.take() for _ in range(3)] == [3, 0, None]


def test_no_path_forges_a_line(gated: Make) -> None:
    gate = gated()
    gate.ask("GET", "/%0a%7b%22event%22:%22forged%22%7d%0a")
    gate.ask("GET", "/" + "a" * 5000)
    lines = gate.lines(2)
    assert len(gate.log.getvalue().splitlines()) == 2
    assert "forged" in lines[0]["path"] and len(lines[1]["path"]) == 256


class Slow(io.StringIO):
    """A stream that counts how often it is written to."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


def record(level: int, text: str) -> logging.LogRecord:
    made = logging.LogRecord("lloss", level, "", 0, text, None, None)
    made.lloss_may_wait = True
    return made


def test_lines_are_written_soon_and_many_at_once() -> None:
    stream = Slow()
    handler = logs.Later(stream)
    for number in range(100):
        handler.emit(record(logging.INFO, str(number)))
    for _ in range(200):
        if len(stream.getvalue().splitlines()) == 100:
            break
        time.sleep(0.01)
    assert stream.getvalue().splitlines() == [str(number) for number in range(100)]
    assert stream.writes < 10


def test_an_event_is_written_at_once_with_all_before_it() -> None:
    stream = Slow()
    handler = logs.Later(stream)
    handler.emit(record(logging.INFO, "before"))
    handler.emit(logging.LogRecord("lloss", logging.INFO, "", 0, "an event", None, None))
    assert stream.getvalue() == "before\nan event\n"


def test_lines_that_nobody_takes_are_counted_not_kept() -> None:
    taken = threading.Event()

    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            taken.wait(20)
            return super().write(text)

    stream = Stuck()
    handler = logs.Later(stream)
    handler.emit(record(logging.INFO, "first"))
    time.sleep(0.2)  # the writer holds it, and waits
    for _ in range(10_500):
        handler.emit(record(logging.INFO, "more"))
    taken.set()
    handler.flush()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10_002
    assert json.loads(lines[-1]) == {"event": "log lines dropped", "count": 500}
