"""Lines of the log."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from datetime import datetime
from operator import itemgetter
from typing import Any

import pytest
from lloss.serve.daemon.observability import logs
from lloss.serve.daemon.observability.logs import Quota

from ..waiting import PATIENCE, until

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
    handler = logs.Later(stream, itemgetter("event"))
    for number in range(100):
        handler.emit(record(logging.INFO, str(number)))
    for _ in range(200):
        if len(stream.getvalue().splitlines()) == 100:
            break
        time.sleep(0.01)
    assert stream.getvalue().splitlines() == [str(number) for number in range(100)]
    assert stream.writes < 10


def event(text: str) -> logging.LogRecord:
    return logging.LogRecord("lloss", logging.INFO, "", 0, text, None, None)


def test_an_event_is_written_at_once_with_all_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_PAUSE", 60)
    stream = Slow()
    handler = logs.Later(stream, itemgetter("event"))
    handler.emit(record(logging.INFO, "before"))
    handler.emit(event("an event"))
    until(lambda: stream.getvalue() == "before\nan event\n")


class Stuck(io.StringIO):
    """A pipe that nobody empties, until ``taken`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.taken = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        self.taken.wait(PATIENCE)
        return super().write(text)


def test_lines_that_nobody_takes_are_counted_not_kept() -> None:
    stream = Stuck()
    handler = logs.Later(stream, itemgetter("event"))
    handler.emit(event("first"))
    assert stream.entered.wait(PATIENCE)
    for _ in range(5_250):
        handler.emit(record(logging.INFO, "more"))
        handler.emit(event("more"))
    assert stream.getvalue() == ""  # nobody who logs waited
    stream.taken.set()
    handler.flush()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10_002
    assert json.loads(lines[-1]) == {"event": "log lines dropped", "count": 500}


def test_a_full_disk_fails_nobody_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_AGAIN", 0.001)

    class Full(io.StringIO):
        full, tries = True, 0

        def write(self, text: str) -> int:
            self.tries += 1
            if self.full:
                raise OSError(28, "No space left on device")
            return super().write(text)

    stream = Full()
    handler = logs.Later(stream, itemgetter("event"))
    for number in range(3):
        handler.emit(event(str(number)))
    until(lambda: stream.tries > 3)
    stream.full = False
    handler.emit(event("3"))
    handler.flush()
    assert stream.getvalue() == "0\n1\n2\n3\n"


def test_a_line_that_cannot_be_written_whole_goes_on_where_it_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "_AGAIN", 0.001)
    ours, pipe = os.pipe()
    os.set_blocking(pipe, False)
    with os.fdopen(pipe, "w") as stream, os.fdopen(ours, encoding="ascii") as reader:
        handler = logs.Later(stream, itemgetter("event"))
        lines = [f"{number:0200}" for number in range(1000)]  # three times what a pipe holds
        for line in lines:
            handler.emit(event(line))
        assert [reader.readline().rstrip("\n") for _ in lines] == lines


def test_a_line_that_cannot_be_put_together_is_told_of(log: io.StringIO) -> None:
    class Bad:
        def __str__(self) -> str:
            raise ValueError("no name")

    logs.event("odd", value=Bad())
    (line,) = map(json.loads, log.getvalue().splitlines())
    assert line["event"] == "log line broken" and "no name" in line["reason"]


END = """
import sys
from lloss.serve.daemon.observability import logs
logs.configure()
logs.event("last words")
"""


@pytest.mark.parametrize("end", ["logs.leave(3)", "sys.exit(3)"])
def test_the_last_line_before_the_end_is_there(end: str) -> None:
    done = subprocess.run([sys.executable, "-c", END + end], stderr=subprocess.PIPE, check=False)
    assert done.returncode == 3 and json.loads(done.stderr)["event"] == "last words"


@pytest.mark.parametrize("end", ["logs.leave(3)", "sys.exit(3)"])
def test_a_log_that_nobody_reads_does_not_hold_the_end_up(end: str) -> None:
    ours, pipe = os.pipe()
    os.set_blocking(pipe, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe, bytes(1 << 12))
    os.set_blocking(pipe, True)
    try:
        process = subprocess.Popen([sys.executable, "-c", END + end], stderr=pipe)
        assert process.wait(PATIENCE) == 3
    finally:
        process.kill()
        os.close(pipe)
        os.close(ours)
