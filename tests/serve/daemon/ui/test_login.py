"""The form at which browsers show the token, behind the server."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from lloss.serve.daemon.http import login_attempts as attempts
from lloss.serve.daemon.ui import login

Make = Callable[..., Any]

TOKEN = "correct-horse-battery-staple"


def at_the_form(server: Any) -> TestClient:
    """A client with the real form."""
    server.app.state.daemon = server.daemon
    server.app.include_router(login.router)
    return server.client()


class Clock:
    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Of attempts alone."""
    clock = Clock()
    monkeypatch.setattr(attempts, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def browser(make_server: Make) -> TestClient:
    return at_the_form(make_server(token=TOKEN))


def test_behind_tls_the_cookie_is_for_tls(make_server: Make) -> None:
    for url, secure in [("", False), ("http://a.example", False), ("https://a.example", True)]:
        client = at_the_form(make_server(token=TOKEN, public_url=url))
        cookie = client.post("/login", data={"token": TOKEN}).headers["set-cookie"]
        assert ("secure" in cookie.lower()) is secure


def test_a_browser_logs_in_and_out(browser: TestClient) -> None:
    assert browser.get("/").status_code == 401
    page = browser.get("/login?next=/pools/a")
    assert 'value="/pools/a"' in page.text and page.headers["cache-control"] == "no-store"
    wrong = browser.post("/login", data={"token": "guess"})
    assert wrong.status_code == 401 and "not the token" in wrong.text
    right = browser.post("/login", data={"token": TOKEN, "next": "/pools/a"})
    assert (right.status_code, right.headers["location"]) == (303, "/pools/a")
    cookie = right.headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower() and TOKEN not in cookie
    kept = browser.cookies["lloss_session"]
    assert browser.get("/").status_code == 200
    assert browser.post("/echo", headers={"Origin": "http://evil.example"}).status_code == 403
    assert browser.post("/logout").headers["location"] == "/login"
    browser.cookies.set("lloss_session", kept, domain="localhost.local")
    assert browser.get("/", headers={"Cookie": f"lloss_session={kept}"}).status_code == 401


@pytest.mark.parametrize(
    "next", ["https://evil.example", "//evil.example", "/\\evil.example", "/a\r\nX: y", "", "é"]
)
def test_the_form_leads_to_no_other_site(browser: TestClient, next: str) -> None:
    reply = browser.post("/login", data={"token": TOKEN, "next": next})
    assert reply.headers["location"] == "/"


def test_the_form_shows_what_it_was_given_as_text(browser: TestClient) -> None:
    page = browser.get("/login", params={"next": '/"><script>alert(1)</script>'})
    assert "<script>" not in page.text


def test_after_some_failures_a_client_has_to_wait(make_server: Make, clock: Clock) -> None:
    server = make_server(token=TOKEN)
    client = at_the_form(server)
    codes = [client.post("/login", data={"token": "guess"}).status_code for _ in range(12)]
    assert codes == [401] * 10 + [429] * 2
    limited = client.post("/login", data={"token": TOKEN, "next": "/a"})
    assert limited.status_code == 429 and limited.headers["retry-after"] == "10"
    assert "Too many attempts" in limited.text and 'value="/a"' in limited.text
    assert "set-cookie" not in limited.headers
    clock.now += 10
    assert client.post("/login", data={"token": "guess"}).status_code == 401
    assert client.post("/login", data={"token": TOKEN}).status_code == 429
    clock.now += 10
    assert client.post("/login", data={"token": TOKEN}).status_code == 303
    assert client.post("/login", data={"token": TOKEN}).status_code == 303, "success costs nothing"
    for outcome, count in {"accepted": 2, "refused": 11, "limited": 4}.items():
        assert server.metrics.value("lloss_logins_total", outcome=outcome) == count
