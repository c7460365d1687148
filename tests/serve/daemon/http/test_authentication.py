"""Tokens, hosts and other sites."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from lloss.serve.daemon import app
from lloss.serve.daemon.api import health
from lloss.serve.daemon.http import authentication
from lloss.serve.daemon.http.authentication import Authentication
from lloss.serve.daemon.settings import ServeSettings

Make = Callable[..., Any]

TOKEN = "correct-horse-battery-staple"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
IMAGES = "/v1/pools/p/images"


def basic(credentials: str, scheme: str = "Basic ") -> str:
    return scheme + base64.b64encode(credentials.encode()).decode()


# Tokens


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong-horse-battery-staple"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": basic(f"{TOKEN}:user")},
        {"Authorization": basic(TOKEN)},
        {"Authorization": f"Basic user:{TOKEN}"},
        {"Authorization": "Basic dG9r$$$"},
        {"Authorization": "Basic"},
        {"Authorization": TOKEN},
        {"Authorization": b"Bearer \xff\xfe"},
        {"Cookie": f"lloss_session={TOKEN}"},
        {"X-Forwarded-For": "127.0.0.1"},
    ],
)
def test_without_the_token_every_route_is_401(
    make_server: Make, headers: dict[str, str | bytes]
) -> None:
    client = make_server(token=TOKEN).client()
    for method, path in [("POST", "/echo"), ("GET", "/metrics"), ("GET", "/no/such")]:
        reply = client.request(method, path, headers=headers)
        assert reply.status_code == 401
        assert reply.headers["www-authenticate"] == 'Basic realm="lloss"'
        assert TOKEN not in reply.text


def test_with_the_token_every_route_is_served(make_server: Make) -> None:
    server = make_server(token=TOKEN)
    assert server.client().post("/echo", content=b"abc", headers=BEARER).content == b"abc"
    for header in (f"bearer {TOKEN}", basic(f"lloss:{TOKEN}"), basic(f":{TOKEN}", "basic  ")):
        assert server.status("/metrics", authorization=header) == 200
    assert server.status("/healthz") == 200
    assert server.status("/static/none") == server.status("/favicon.ico") == 404
    assert server.client().request("GET", "/healthz", content=b"a").status_code == 401
    for path in ("/static/../metrics", "/healthz/../metrics", "/static/%2e%2e/"):
        assert server.ask("GET", path).status_code == 400, "no detour leads past the token"


def test_cookies_without_the_token_are_not_parsed(make_server: Make) -> None:
    """Python takes seconds for 64 KiB of odd ones."""
    client = make_server(token=TOKEN).client()
    cookie = {"Cookie": "a=b"}
    assert client.get("/healthz", headers=cookie).json()["cookies"] == {}
    assert client.get("/healthz", headers={**cookie, **BEARER}).json()["cookies"] == {"a": "b"}


def test_secrets_are_not_in_the_log(make_server: Make) -> None:
    server = make_server(token=TOKEN)
    assert server.status(f"/?token={TOKEN}&sig=abcdef", **BEARER) == 200
    assert server.status(Authorization="Bearer guess") == 401
    assert [line["status"] for line in server.lines(2)] == [200, 401]
    for secret in ("guess", TOKEN, "abcdef"):
        assert secret not in server.log.getvalue()
    assert TOKEN not in repr(server.settings)


def test_the_token_is_compared_in_constant_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = Mock(return_value=True)
    settings = ServeSettings(model=tmp_path / "m", data_dir=tmp_path, token=TOKEN)
    monkeypatch.setattr(authentication.hmac, "compare_digest", compare)
    assert Authentication(settings).admits({b"authorization": b"Bearer given"})
    compare.assert_called_once_with(b"given", TOKEN.encode())


def test_reasons_of_readiness_need_the_token(make_server: Make) -> None:
    server = make_server(token=TOKEN)
    server.app.state.daemon = server.daemon
    server.app.include_router(health.router)
    server.daemon.not_ready = lambda: "/srv/data: the disk is full"
    client = server.client()
    assert client.get("/readyz").json() == {"ready": False, "error": "not ready"}
    assert client.get("/v2/health/ready").status_code == 503
    assert "disk" in client.get("/readyz", headers=BEARER).json()["error"]


def test_the_openapi_document_names_the_token(make_server: Make) -> None:
    schema = {"paths": {"/a": {"get": {"responses": {"422": {"description": "x"}}}}}}
    complete = app._complete(schema, make_server(token=TOKEN).daemon)
    assert complete["security"] == [{"token": []}]
    assert set(complete["paths"]["/a"]["get"]["responses"]) == {"422", "default"}


# Hosts


@pytest.mark.parametrize(
    ("settings", "ours", "others"),
    [
        (
            {},
            "localhost localhost:8000 LOCALHOST. 127.0.0.1:80 [::1]:8000",
            "evil.example localhost.evil.example evil:127.0.0.1 10.0.0.1 localhost@evil.example",
        ),
        (
            {"allowed_hosts": ("Scores.Example", "10.0.0.1")},
            "scores.example:443 10.0.0.1 localhost",
            "other.example",
        ),
        ({"host": "0.0.0.0", "token": TOKEN}, "any.example", ""),
        (
            {"host": "0.0.0.0", "token": TOKEN, "allowed_hosts": ("scores.example",)},
            "scores.example 127.0.0.1",
            "any.example",
        ),
    ],
)
def test_unknown_host_names_are_refused(
    make_server: Make, settings: Any, ours: str, others: str
) -> None:
    """A name that an attacker points at 127.0.0.1 would give its pages our origin."""
    server = make_server(**settings)
    assert {server.status(host=host, **BEARER) for host in ours.split()} == {200}
    for host in others.split():
        assert server.status(host=host, **BEARER) == 421, host
        assert server.status("/healthz", host=host) == 200


def test_http_1_1_needs_a_host(make_server: Make) -> None:
    server = make_server()
    assert server.status(host="") == 421
    reply = server.send(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 400")
    assert server.send(b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")


# Other sites


OURS: list[dict[str, str]] = [
    {},
    {"Origin": "http://localhost:8000", "Host": "localhost:8000"},
    {"Origin": "https://localhost", "Host": "localhost"},
    {"Origin": "http://localhost:80", "Host": "localhost"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"},
    {"Sec-Fetch-Site": "none"},
]
OTHERS: list[dict[str, str]] = [
    {"Origin": "http://evil.example", "Host": "localhost"},
    {"Origin": "http://localhost:3000", "Host": "localhost:8000"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://localhost:8000.evil.example", "Host": "localhost:8000"},
    {"Origin": "file://"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
]


def test_pages_of_other_sites_change_nothing(make_server: Make) -> None:
    """Also with the password, which a browser sends along."""
    server = make_server(token=TOKEN)
    for code, given in ((200, OURS), (403, OTHERS)):
        for headers in given:
            status = server.status("/echo", "POST", Authorization=basic(f"any:{TOKEN}"), **headers)
            assert status == code, headers


def test_pages_of_the_public_url_are_ours(make_server: Make) -> None:
    server = make_server(public_url="https://scores.example")
    for host in ("scores.example", "localhost:8000"):
        for origin, code in {"https://scores.example": 200, "https://other.example": 403}.items():
            assert server.status("/echo", "POST", origin=origin, host=host) == code
    assert server.status("/echo", "POST", origin="https://") == 403
    assert server.status(host="other.example") == 421


@pytest.mark.parametrize(
    ("site", "mode", "dest", "code"),
    [
        ("cross-site", "no-cors", "image", 403),
        ("same-site", "no-cors", "script", 403),
        ("cross-site", "navigate", "iframe", 403),
        ("cross-site", "navigate", "document", 200),
        ("same-origin", "no-cors", "image", 200),
    ],
)
def test_pages_of_other_sites_read_nothing(
    make_server: Make, site: str, mode: str, dest: str, code: int
) -> None:
    headers = {"Sec_Fetch_Site": site, "Sec_Fetch_Mode": mode, "Sec_Fetch_Dest": dest}
    server = make_server()
    assert server.status(f"{IMAGES}?id=a", **headers) == server.status(**headers) == code
