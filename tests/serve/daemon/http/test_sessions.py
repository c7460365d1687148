"""Browser sessions: their signature, expiry and cookie."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from lloss.serve.daemon.http import sessions as http_sessions
from lloss.serve.daemon.http.sessions import COOKIE, Sessions

Make = Callable[..., Any]

TOKEN = "correct-horse-battery-staple"


def test_a_session_is_signed_expires_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions()
    value = sessions.new()
    assert sessions.valid(value) and not Sessions().valid(value)
    until, nonce, signature = value.split(".")
    assert not sessions.valid(f"{int(until) + 1}.{nonce}.{signature}")
    for wrong in ("", ".", "..", value[:-1], value + "0", f"é.{signature}", signature):
        assert not sessions.valid(wrong)
    other = sessions.new()
    sessions.end(value)
    assert not sessions.valid(value) and sessions.valid(other)
    now = time.time()
    later = now + http_sessions.SESSION_SECONDS + 1
    monkeypatch.setattr(http_sessions.time, "time", lambda: later)
    assert not sessions.valid(other)


@pytest.mark.parametrize(
    "cookie",
    ["{}", "a=b; {}", "{}; a=b", 'a="x;y=\\073"; {};', " a ;{} ; =", "lloss_session=old; {}"],
)
def test_a_session_is_found_among_other_cookies(make_server: Make, cookie: str) -> None:
    server = make_server(token=TOKEN)
    ours = f"{COOKIE}={server.daemon.access.log_in(TOKEN)}"
    assert server.status(cookie=cookie.format(ours)) == 200
    assert server.status(cookie=cookie.format(f"x{ours}")) == 401
