"""Tokens, hosts, other sites, signed links and sessions."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
from lloss.serve.daemon import app
from lloss.serve.daemon.api import health
from lloss.serve.daemon.http import authentication
from lloss.serve.daemon.http.authentication import Access, Sessions
from lloss.serve.daemon.settings import ServeSettings

Make = Callable[..., Any]

TOKEN = "correct-horse-battery-staple"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
IMAGES = "/v1/pools/p/images"


def status(server: Any, path: str = "/", method: str = "GET", **headers: str | bytes) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return int(server.client().request(method, path, headers=named).status_code)


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
        {"Authorization": TOKEN},
        {"Authorization": b"Bearer \xff\xfe"},
        {"Cookie": f"lloss_session={TOKEN}"},
        {"Cookie": "lloss_session=99999999999.00." + "0" * 64},
        {"Cookie": b"lloss_session=\xff"},
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
        assert reply.headers["www-authenticate"] == 'Bearer realm="lloss"'
        assert TOKEN not in reply.text


def test_with_the_token_every_route_is_served(make_server: Make) -> None:
    server = make_server(token=TOKEN)
    assert server.client().post("/echo", content=b"abc", headers=BEARER).content == b"abc"
    assert status(server, "/metrics", authorization=f"bearer {TOKEN}") == 200
    assert status(server, "/healthz") == 200
    assert status(server, "/static/none") == status(server, "/favicon.ico") == 404
    for path in ("/static/../metrics", "/healthz/../metrics", "/static/%2e%2e/"):
        assert server.ask("GET", path).status == 400, "no detour leads past the token"


def test_wrong_tokens_do_not_fill_the_log_and_secrets_are_not_in_it(make_server: Make) -> None:
    server = make_server(token=TOKEN)
    assert status(server, f"/?token={TOKEN}&sig=abcdef", **BEARER) == 200
    for _ in range(50):
        status(server, Authorization="Bearer guess")
    assert len(server.counted(51)) == 51 and len(server.lines(21)) == 21
    for secret in ("guess", TOKEN, "abcdef"):
        assert secret not in server.log.getvalue()
    assert TOKEN not in repr(server.settings)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/", ""),
        ("/pools/a", "?next=%2Fpools%2Fa"),
        ("/pools/a?page=2&x=%C3%A9", "?next=%2Fpools%2Fa%3Fpage%3D2%26x%3D%25C3%25A9"),
        (f"/pools/a?x={'y' * 3000}", ""),
    ],
)
def test_a_browser_is_sent_to_the_login_form(make_server: Make, path: str, query: str) -> None:
    reply = make_server(token=TOKEN).client().get(path, headers={"Accept": "text/html,*/*"})
    assert (reply.status_code, reply.headers["location"]) == (303, f"/login{query}")


def test_the_token_is_compared_in_constant_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr(
        authentication.hmac, "compare_digest", lambda a, b: bool(compared.append((a, b))) or a == b
    )
    settings = ServeSettings(model=tmp_path / "m", data_dir=tmp_path, token=TOKEN)
    assert Access(settings).is_token(TOKEN.encode())
    assert compared == [(TOKEN.encode(), TOKEN.encode())]


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
    ("host", "code"),
    [
        *((host, 200) for host in ("localhost", "localhost:8000", "LOCALHOST.", "127.0.0.1:80")),
        ("[::1]:8000", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("evil.example:127.0.0.1", 421),
        ("10.0.0.1", 421),
        ("", 421),
        ("localhost@evil.example", 421),
    ],
)
def test_unknown_host_names_are_refused(make_server: Make, host: str, code: int) -> None:
    """A name that an attacker points at 127.0.0.1 would give its pages our origin."""
    server = make_server()
    assert status(server, host=host) == code
    assert status(server, "/healthz", host=host) == 200


@pytest.mark.parametrize(
    ("settings", "codes"),
    [
        (
            {"allowed_hosts": ("Scores.Example", "10.0.0.1")},
            {"scores.example:443": 200, "10.0.0.1": 200, "localhost": 200, "other.example": 421},
        ),
        ({"host": "0.0.0.0", "token": TOKEN}, {"any.example": 200}),
        (
            {"host": "0.0.0.0", "token": TOKEN, "allowed_hosts": ("scores.example",)},
            {"scores.example": 200, "127.0.0.1": 200, "any.example": 421},
        ),
    ],
)
def test_allowed_hosts(make_server: Make, settings: Any, codes: dict[str, int]) -> None:
    server = make_server(**settings)
    assert {host: status(server, host=host, **BEARER) for host in codes} == codes


def test_http_1_1_needs_a_host(make_server: Make) -> None:
    server = make_server()
    reply = server.send(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 400")
    assert server.send(b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")


# Other sites


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, 200),
        ({"Origin": "http://localhost:8000", "Host": "localhost:8000"}, 200),
        ({"Origin": "https://localhost", "Host": "localhost"}, 200),
        ({"Origin": "http://localhost:80", "Host": "localhost"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://evil.example", "Host": "localhost"}, 403),
        ({"Origin": "http://localhost:3000", "Host": "localhost:8000"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "http://localhost:8000.evil.example", "Host": "localhost:8000"}, 403),
        ({"Origin": "file://"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
    ],
)
def test_pages_of_other_sites_change_nothing(
    make_server: Make, headers: dict[str, str], code: int
) -> None:
    assert status(make_server(), "/echo", "POST", **headers) == code


def test_pages_of_the_public_url_are_ours(make_server: Make) -> None:
    server = make_server(public_url="https://scores.example")
    for host in ("scores.example", "localhost:8000"):
        for origin, code in {"https://scores.example": 200, "https://other.example": 403}.items():
            assert status(server, "/echo", "POST", origin=origin, host=host) == code
    assert status(server, "/echo", "POST", origin="https://") == 403
    assert status(server, host="other.example") == 421


@pytest.mark.parametrize(
    ("site", "mode", "dest", "code"),
    [
        ("cross-site", "no-cors", "image", 403),
        ("cross-site", "cors", "empty", 403),
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
    assert status(server, f"{IMAGES}?id=a", **headers) == status(server, **headers) == code


# Links


@pytest.mark.parametrize(
    "id", ["a/b.png", "ü €", "a&id=b#?%2f", "", "\u202e", "x\ny", "\ud800"], ids=ascii
)
def test_a_signed_link_opens_one_image_to_other_sites(make_server: Make, id: str) -> None:
    server = make_server(token=TOKEN)
    cross = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    link = f"{IMAGES}?{server.daemon.access.signed_query('p', id)}"
    reply = server.client().get(link, headers=cross)
    assert reply.status_code == 200
    assert reply.headers["cross-origin-resource-policy"] == "cross-origin"
    assert reply.headers["access-control-allow-origin"] == "*"
    plain = server.client().get(f"{IMAGES}?id=a", headers=BEARER)
    assert "access-control-allow-origin" not in plain.headers


def test_a_signed_link_opens_nothing_else(make_server: Make) -> None:
    server = make_server(token=TOKEN)
    query = server.daemon.access.signed_query("p", "a")
    parts = {name: values[0] for name, values in parse_qs(query).items()}

    def asked(path: str = IMAGES, method: str = "GET", **changed: str) -> int:
        return status(server, f"{path}?{urlencode({**parts, **changed})}", method)

    assert asked() == 200
    assert asked(id="b") == 401
    assert asked(sig="0" * 64) == asked(sig="") == asked(sig="é") == 401
    assert asked(expires=str(int(parts["expires"]) + 86400)) == asked(expires="x") == 401
    assert asked(path="/v1/pools/q/images") == asked(path="/metrics") == asked(path="/") == 401
    assert asked(method="POST") == asked(method="DELETE") == 401
    for more in ("id=b", "sig=0", "expires=9"):
        assert status(server, f"{IMAGES}?{query}&{more}") == 401
        assert status(server, f"{IMAGES}?{more}&{query}") == 401


def test_a_link_expires(make_server: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    server, now = make_server(token=TOKEN), time.time()
    link = f"{IMAGES}?{server.daemon.access.signed_query('p', 'a', seconds=3600)}"
    assert link == f"{IMAGES}?{server.daemon.access.signed_query('p', 'a', seconds=3600)}"
    monkeypatch.setattr(authentication.time, "time", lambda: now + 3500)
    assert status(server, link) == 200
    monkeypatch.setattr(authentication.time, "time", lambda: now + 3600 + 86400)
    assert status(server, link) == 401


def test_links_survive_restarts_and_end_with_their_secret(
    make_server: Make, tmp_path: Path
) -> None:
    first = make_server(token=TOKEN)
    link = f"{IMAGES}?{first.daemon.access.signed_query('p', 'a')}"
    authentication._read.cache_clear()
    assert status(make_server(token=TOKEN), link) == 200
    key = tmp_path / "data" / "secret.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.write_bytes(os.urandom(32))
    os.utime(key, ns=(1, 1))
    assert status(first, link) == 401
    key.unlink()
    assert status(first, link) == 401
    assert status(first, f"{IMAGES}?{first.daemon.access.signed_query('p', 'a')}") == 200


def test_threads_make_one_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Barrier(2)

    def token_bytes(count: int) -> bytes:
        with contextlib.suppress(threading.BrokenBarrierError):
            begun.wait(0.2)  # for another thread that makes one, too
        return os.urandom(count)

    monkeypatch.setattr(authentication.secrets, "token_bytes", token_bytes)
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(authentication._secret, [tmp_path] * 2)
    assert first == second == authentication._secret(tmp_path)


# Sessions


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
    later = now + authentication.SESSION_SECONDS + 1
    monkeypatch.setattr(authentication.time, "time", lambda: later)
    assert not sessions.valid(other)


@pytest.mark.parametrize(
    "cookie",
    ["{}", "a=b; {}", "{}; a=b", 'a="x;y=\\073"; {};', " a ;{} ; =", "lloss_session=old; {}"],
)
def test_a_session_is_found_among_other_cookies(make_server: Make, cookie: str) -> None:
    server = make_server(token=TOKEN)
    ours = f"{authentication.COOKIE}={server.daemon.access.log_in(TOKEN)}"
    assert status(server, cookie=cookie.format(ours)) == 200
    assert status(server, cookie=cookie.format(f"x{ours}")) == 401
