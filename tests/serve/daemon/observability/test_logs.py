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
import warnings
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from lloss.serve.daemon.observability import logs
from lloss.serve.daemon.observability.logs import LineWriter, Quota

from ..waiting import PATIENCE, until

NASTY = 'a\nlevel=error\r\t"\x1b[31m\u2028\x85\ud800é\\'


def test_a_json_line_is_an_object_whatever_it_holds(log: io.StringIO) -> None:
    logs.event(NASTY, path=NASTY, folder=object, **{"odd name": 1})
    (line,) = log.getvalue().splitlines()
    values = json.loads(line)
    assert line.isascii() and values["event"] == values["path"] == NASTY
    assert datetime.fromisoformat(values["time"]).utcoffset().total_seconds() == 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", values["time"])


def test_text_is_one_line_too(log: io.StringIO) -> None:
    logs.configure("text", log)
    logs.event("request", path=NASTY, route="/v1/pools/{name}", status=200)
    (line,) = log.getvalue().splitlines()
    assert line.isascii() and " INFO request path=" in line
    assert line.endswith(" route=/v1/pools/{name} status=200")


def test_records_of_libraries_and_warnings_take_the_same_way(log: io.StringIO) -> None:
    logging.getLogger("other").error("broken %s", "pipe\nforged")
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    warnings.warn("odd", stacklevel=1)
    logging.getLogger("uvicorn.access").info("GET /?token=secret")
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["logger"] for line in lines] == ["other", "py.warnings"]
    assert lines[0]["event"] == "broken pipe\nforged"


def test_a_traceback_is_inside_the_line(log: io.StringIO) -> None:
    try:
        raise ValueError("bad")
    except ValueError as error:
        logs.event("request_failed", logging.ERROR, error, request_id="7")
    (line,) = log.getvalue().splitlines()
    values = json.loads(line)
    assert values["level"] == "error" and values["traceback"].endswith("ValueError: bad")


def test_a_quota_counts_what_it_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    quota = Quota(lines=2, seconds=60)
    assert [quota.take() for _ in range(5)] == [0, 0, None, None, None]
    now[0] = 61
    assert [quota.take() for _ in range(3)] == [3, 0, None]


def test_no_path_forges_a_line(make_server: Callable[..., Any]) -> None:
    server = make_server()
    server.ask("GET", "/%0a%7b%22event%22:%22forged%22%7d%0a")
    server.ask("GET", "/" + "a" * 5000)
    lines = server.lines(2)
    assert len(server.log.getvalue().splitlines()) == 2
    assert "forged" in lines[0]["path"] and len(lines[1]["path"]) == 256


def record(text: object) -> logging.LogRecord:
    return logging.LogRecord("lloss", logging.INFO, "", 0, text, None, None)


class Stream(io.StringIO):
    """Counts writes, which wait for ``taken`` and fail while ``full``."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.taken = threading.Event(), threading.Event()
        self.taken.set()
        self.full, self.writes = False, 0

    def write(self, text: str) -> int:
        self.writes += 1
        self.entered.set()
        self.taken.wait(PATIENCE)
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(text)


def writer(stream: Any) -> LineWriter:
    return LineWriter(stream, logging.Formatter())


def test_lines_are_written_soon_and_many_at_once() -> None:
    stream = Stream()
    handler = writer(stream)
    for number in range(100):
        handler.emit(record(number))
    until(lambda: stream.getvalue().splitlines() == [str(number) for number in range(100)])
    assert stream.writes < 10


def test_lines_that_nobody_reads_are_counted_not_kept() -> None:
    stream = Stream()
    stream.taken.clear()
    handler = writer(stream)
    handler.emit(record("first"))
    assert stream.entered.wait(PATIENCE)
    for _ in range(10_500):
        handler.emit(record("more"))
    assert stream.getvalue() == ""  # emit did not wait
    stream.taken.set()
    handler.flush()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10_002
    assert json.loads(lines[-1]) == {"event": "log_lines_dropped", "count": 500}


def test_a_full_disk_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_RETRY_SECONDS", 0.001)
    stream = Stream()
    stream.full = True
    handler = writer(stream)
    for number in range(3):
        handler.emit(record(number))
    until(lambda: stream.writes > 3)
    stream.full = False
    handler.emit(record("3"))
    handler.flush()
    assert stream.getvalue() == "0\n1\n2\n3\n"


def test_a_partial_write_continues_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_RETRY_SECONDS", 0.001)
    ours, pipe = os.pipe()
    os.set_blocking(pipe, False)
    with os.fdopen(pipe, "w") as stream, os.fdopen(ours, encoding="ascii") as reader:
        handler = writer(stream)
        lines = [f"{number:0200}" for number in range(1000)]  # three times what a pipe takes
        for line in lines:
            handler.emit(record(line))
        assert [reader.readline().rstrip("\n") for _ in lines] == lines


END = """
import sys
from lloss.serve.daemon.observability import logs
logs.configure()
logs.event("last_words")
"""


@pytest.mark.parametrize("end", ["logs.leave(3)", "sys.exit(3)"])
def test_the_last_line_is_written_unless_nobody_reads(end: str) -> None:
    command = [sys.executable, "-c", END + end]
    done = subprocess.run(command, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 3 and json.loads(done.stderr)["event"] == "last_words"
    ours, pipe = os.pipe()
    os.set_blocking(pipe, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe, bytes(1 << 12))
    os.set_blocking(pipe, True)
    try:
        process = subprocess.Popen(command, stderr=pipe)
        assert process.wait(PATIENCE) == 3
    finally:
        process.kill()
        os.close(pipe)
        os.close(ours)
