"""Lines of the log."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from lloss.serve.daemon.observability import logs
from lloss.serve.daemon.observability.logs import LineWriter

from ..waiting import PATIENCE

NASTY = 'a\nlevel=error\r\t"\x1b[31m\u2028\x85\ud800é\\'


def test_a_json_line_is_an_object_whatever_it_holds(log: Any) -> None:
    logs.event(NASTY, path=NASTY, folder=object, **{"odd name": 1})
    (line,) = log.getvalue().splitlines()
    values = json.loads(line)
    assert line.isascii() and values["event"] == values["path"] == NASTY
    assert datetime.fromisoformat(values["time"]).utcoffset().total_seconds() == 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", values["time"])


def test_records_of_libraries_and_warnings_take_the_same_way(
    log: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger("other").error("broken %s", "pipe\nforged")
    logging.getLogger().handlers[0].emit(record("wrong %d", "number"))
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    warnings.warn("odd", stacklevel=1)
    logging.getLogger("uvicorn.access").info("GET /?token=secret")
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["logger"] for line in lines] == ["other", "py.warnings"]
    assert lines[0]["event"] == "broken pipe\nforged"
    assert "not str" in capsys.readouterr().err


def test_a_traceback_is_inside_the_line(log: Any) -> None:
    try:
        raise ValueError("bad")
    except ValueError as error:
        logs.event("request_failed", logging.ERROR, error, request_id="7")
    (line,) = log.getvalue().splitlines()
    values = json.loads(line)
    assert values["level"] == "error" and values["traceback"].endswith("ValueError: bad")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Its end to read, and the one to write, which is full."""
    ends = os.pipe()
    os.set_blocking(ends[1], False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(ends[1], b"\n" * (1 << 12))
    yield ends
    for end in ends:
        os.close(end)


def record(text: object, *values: object) -> logging.LogRecord:
    return logging.LogRecord("lloss", logging.INFO, "", 0, text, values, None)


def test_lines_wait_while_nobody_reads_and_too_many_are_counted(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_RETRY_SECONDS", 0.001)
    handler = LineWriter(pipe[1])
    for number in range(20_500):  # the thread holds some, and as many wait
        handler.emit(record(number))
    with os.fdopen(os.dup(pipe[0]), encoding="ascii") as reader:
        lines = (json.loads(line) for line in reader if line.strip())
        written, dropped = 0, 0
        while written + dropped < 20_500:
            line = next(lines)
            dropped += line.get("count", 0)
            written += "count" not in line
    assert written >= 10_000 and dropped > 0


END = """
import sys
from lloss.serve.daemon.observability import logs
logs.configure()
logs.event("last_words")
"""


@pytest.mark.parametrize("end", ["logs.leave(3)", "sys.exit(3)"])
def test_the_last_line_is_written_unless_nobody_reads(end: str, pipe: tuple[int, int]) -> None:
    command = [sys.executable, "-c", END + end]
    done = subprocess.run(command, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 3 and json.loads(done.stderr)["event"] == "last_words"
    os.set_blocking(pipe[1], True)
    with subprocess.Popen(command, stderr=pipe[1]) as process:
        assert process.wait(PATIENCE) == 3
