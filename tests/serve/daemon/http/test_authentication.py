"""Tokens, sessions, hosts, other sites, signed links: on a real socket."""

from __future__ import annotations

import contextlib
import io
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
from lloss.serve.daemon.http import authentication as access
from lloss.serve.daemon.http.authentication import Access, Sessions
from lloss.serve.daemon.settings import ServeSettings

Make = Callable[..., Any]

TOKEN = "correct-horse-battery-staple"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


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
        {"Authorization": "Bearer \xff\xfe"},
        {"Cookie": f"lloss_session={TOKEN}"},
        {"Cookie": "lloss_session=99999999999.00." + "0" * 64},
        {"Cookie": "lloss_session=\xff"},
        {"X-Forwarded-For": "127.0.0.1"},
    ],
)
def test_without_the_token_nothing_is_told(make_server: Make, headers: dict[str, str]) -> None:
    server = make_server(token=TOKEN)
    for method, path in [("POST", "/echo"), ("GET", "/metrics"), ("GET", "/no/such")]:
        reply = server.ask(method, path, headers=headers)
        assert reply.status == 401 and reply.headers["www-authenticate"] == 'Bearer realm="lloss"'
        assert TOKEN not in reply.error


def test_with_the_token_all_is_served(make_server: Make) -> None:
    server = make_server(token=TOKEN)
    assert server.ask("POST", "/echo", b"abc", BEARER).body == b"abc"
    lower = {"authorization": f"bearer {TOKEN}"}
    assert server.ask("GET", "/metrics", headers=lower).status == 200
    assert server.ask("GET", "/healthz").status == 200
    assert server.ask("GET", "/static/none").status == 404
    assert server.ask("GET", "/favicon.ico").status == 404


def test_two_tokens_are_none(make_server: Make) -> None:
    raw = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    pair = f"Authorization: Bearer {TOKEN}\r\nAuthorization: Bearer no\r\n\r\n"
    assert make_server(token=TOKEN).send((raw + pair).encode()).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("path", ["/static/../metrics", "/healthz/../metrics", "/static/%2e%2e/"])
def test_no_detour_leads_past_the_token(make_server: Make, path: str) -> None:
    assert make_server(token=TOKEN).ask("GET", path).status == 400


def test_failed_tokens_fill_no_log(make_server: Make) -> None:
    server = make_server(token=TOKEN)
    for _ in range(50):
        server.ask("GET", "/", headers={"Authorization": "Bearer guess"})
    assert len(server.counted(50)) == 50 and len(server.lines(20)) == 20
    assert "guess" not in server.log.getvalue()


def test_secrets_are_not_logged(make_server: Make) -> None:
    server = make_server(token=TOKEN)
    server.ask("GET", f"/?token={TOKEN}&sig=abcdef", headers=BEARER)
    server.lines()
    assert TOKEN not in server.log.getvalue() and "abcdef" not in server.log.getvalue()
    assert TOKEN not in repr(server.settings)


def test_a_browser_is_sent_to_the_form(make_server: Make) -> None:
    server, accept = make_server(token=TOKEN), {"Accept": "text/html,*/*"}
    for path, query in [
        ("/", ""),
        ("/pools/a", "?next=%2Fpools%2Fa"),
        ("/pools/a?page=2&x=%C3%A9", "?next=%2Fpools%2Fa%3Fpage%3D2%26x%3D%25C3%25A9"),
        (f"/pools/a?x={'y' * 3000}", ""),
    ]:
        reply = server.ask("GET", path, headers=accept)
        assert (reply.status, reply.headers["location"]) == (303, f"/login{query}")


# Hosts


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8000", 200),
        ("LOCALHOST.", 200),
        ("127.0.0.1:80", 200),
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
def test_names_that_are_not_ours(make_server: Make, host: str, status: int) -> None:
    """A name that an attacker's server points at 127.0.0.1 makes its pages ours."""
    reply = make_server().ask("GET", "/", headers={"Host": host})
    assert reply.status == status
    assert make_server().ask("GET", "/healthz", headers={"Host": host}).status == 200


def test_names_may_be_added(make_server: Make) -> None:
    server = make_server(allowed_hosts=("Scores.Example", "10.0.0.1"))
    for host in ("scores.example:443", "10.0.0.1", "localhost"):
        assert server.ask("GET", "/", headers={"Host": host}).status == 200
    assert server.ask("GET", "/", headers={"Host": "other.example"}).status == 421


def test_on_all_addresses_any_name_will_do_until_some_are_given(make_server: Make) -> None:
    other = {**BEARER, "Host": "any.example"}
    assert make_server(host="0.0.0.0", token=TOKEN).ask("GET", "/", headers=other).status == 200
    named = make_server(host="0.0.0.0", token=TOKEN, allowed_hosts=("scores.example",))
    assert named.ask("GET", "/", headers=other).status == 421
    for host in ("scores.example", "127.0.0.1"):
        assert named.ask("GET", "/", headers={**BEARER, "Host": host}).status == 200


def test_a_request_names_one_host(make_server: Make) -> None:
    server = make_server()
    end = "Connection: close\r\n\r\n"
    none = server.send(f"GET / HTTP/1.1\r\n{end}".encode())
    two = server.send(f"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n{end}".encode())
    assert none.startswith(b"HTTP/1.1 400") and two.startswith(b"HTTP/1.1 400")
    assert server.send(b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")


# Other sites


@pytest.mark.parametrize(
    ("headers", "status"),
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
    make_server: Make, headers: dict[str, str], status: int
) -> None:
    reply = make_server().ask("POST", "/echo", b"abc", headers)
    assert reply.status == status, reply.body


def test_behind_a_proxy_its_pages_are_ours(make_server: Make) -> None:
    server = make_server(public_url="https://scores.example")
    ours, other = ({"Origin": f"https://{name}.example"} for name in ("scores", "other"))
    for host in ("scores.example", "localhost:8000"):
        assert server.ask("POST", "/echo", b"a", {**ours, "Host": host}).status == 200
        assert server.ask("POST", "/echo", b"a", {**other, "Host": host}).status == 403
    assert server.ask("POST", "/echo", b"a", {"Origin": "https://"}).status == 403
    assert server.ask("GET", "/", headers={"Host": "other.example"}).status == 421


@pytest.mark.parametrize(
    ("fetch", "status"),
    [
        ({"Site": "cross-site", "Mode": "no-cors", "Dest": "image"}, 403),
        ({"Site": "cross-site", "Mode": "cors", "Dest": "empty"}, 403),
        ({"Site": "same-site", "Mode": "no-cors", "Dest": "script"}, 403),
        ({"Site": "cross-site", "Mode": "navigate", "Dest": "iframe"}, 403),
        ({"Site": "cross-site", "Mode": "navigate", "Dest": "document"}, 200),
        ({"Site": "same-origin", "Mode": "no-cors", "Dest": "image"}, 200),
    ],
)
def test_pages_of_other_sites_read_nothing(
    make_server: Make, fetch: dict[str, str], status: int
) -> None:
    headers = {f"Sec-Fetch-{name}": value for name, value in fetch.items()}
    server = make_server()
    assert server.ask("GET", "/v1/pools/p/images?id=a", headers=headers).status == status
    assert server.ask("GET", "/", headers=headers).status == status


# Links

CROSS = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
IDS = ["a/b.png", "ü €", "a&id=b#?%2f", "", "\u202e", "x\ny", "\ud800"]


@pytest.mark.parametrize("id", IDS)
def test_a_signed_link_opens_one_image_to_a_page_elsewhere(make_server: Make, id: str) -> None:
    server = make_server(token=TOKEN)
    path = f"/v1/pools/p/images?{server.daemon.access.signed_query('p', id)}"
    reply = server.ask("GET", path, headers=CROSS)
    assert reply.status == 200
    assert reply.headers["cross-origin-resource-policy"] == "cross-origin"
    assert reply.headers["access-control-allow-origin"] == "*"
    plain = server.ask("GET", f"/v1/pools/p/images?{urlencode({'id': 'a'})}", headers=BEARER)
    assert "access-control-allow-origin" not in plain.headers


def test_a_signed_link_opens_nothing_else(make_server: Make) -> None:
    server = make_server(token=TOKEN)
    query = server.daemon.access.signed_query("p", "a")
    parts = {name: values[0] for name, values in parse_qs(query).items()}

    def asked(path: str = "/v1/pools/p/images", method: str = "GET", **changed: str) -> int:
        return int(server.ask(method, f"{path}?{urlencode({**parts, **changed})}").status)

    assert asked() == 200
    assert asked(id="b") == 401
    assert asked(sig="0" * 64) == asked(sig="") == asked(sig="é") == 401
    assert asked(expires=str(int(parts["expires"]) + 86400)) == asked(expires="x") == 401
    assert asked(path="/v1/pools/q/images") == asked(path="/metrics") == asked(path="/") == 401
    assert asked(method="POST") == asked(method="DELETE") == 401
    for more in ("id=b", "sig=0", "expires=9"):
        assert server.ask("GET", f"/v1/pools/p/images?{query}&{more}").status == 401
        assert server.ask("GET", f"/v1/pools/p/images?{more}&{query}").status == 401


def test_a_link_expires(make_server: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    server = make_server(token=TOKEN)
    now = time.time()
    path = f"/v1/pools/p/images?{server.daemon.access.signed_query('p', 'a', seconds=3600)}"
    assert path == f"/v1/pools/p/images?{server.daemon.access.signed_query('p', 'a', seconds=3600)}"
    monkeypatch.setattr(access.time, "time", lambda: now + 3500)
    assert server.ask("GET", path).status == 200
    monkeypatch.setattr(access.time, "time", lambda: now + 3600 + 86400)
    assert server.ask("GET", path).status == 401


def test_links_hold_across_restarts_and_not_across_daemons(
    make_server: Make, tmp_path: Path
) -> None:
    first = make_server(token=TOKEN)
    path = f"/v1/pools/p/images?{first.daemon.access.signed_query('p', 'a')}"
    access._read.cache_clear()
    assert make_server(token=TOKEN).ask("GET", path).status == 200
    key = tmp_path / "data" / "secret.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.write_bytes(os.urandom(32))
    os.utime(key, ns=(1, 1))
    assert make_server(token=TOKEN).ask("GET", path).status == 401


def test_without_its_secret_a_link_ends_at_once(make_server: Make, tmp_path: Path) -> None:
    server = make_server(token=TOKEN)
    path = f"/v1/pools/p/images?{server.daemon.access.signed_query('p', 'a')}"
    assert server.ask("GET", path).status == 200
    (tmp_path / "data" / "secret.key").unlink()
    assert server.ask("GET", path).status == 401
    path = f"/v1/pools/p/images?{server.daemon.access.signed_query('p', 'a')}"
    assert server.ask("GET", path).status == 200


def test_one_secret_is_made_however_many_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Barrier(2)

    def token_bytes(count: int) -> bytes:
        with contextlib.suppress(threading.BrokenBarrierError):
            begun.wait(0.2)  # for another that makes one, too
        return os.urandom(count)

    monkeypatch.setattr(access.secrets, "token_bytes", token_bytes)
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(access._secret, [tmp_path] * 2)
    assert first == second == access._secret(tmp_path)


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
    monkeypatch.setattr(access.time, "time", lambda: now + access.SESSION_SECONDS + 1)
    assert not sessions.valid(other)


@pytest.mark.parametrize(
    "cookie",
    ["{}", "a=b; {}", "{}; a=b", 'a="x;y=\\073"; {};', " a ;{} ; =", "lloss_session=old; {}"],
)
def test_a_session_is_found_among_other_cookies(make_server: Make, cookie: str) -> None:
    server = make_server(token=TOKEN)
    ours = f"{access.COOKIE}={server.daemon.access.log_in(TOKEN)}"
    assert server.ask("GET", "/", headers={"Cookie": cookie.format(ours)}).status == 200
    other = cookie.format(f"x{ours}")
    assert server.ask("GET", "/", headers={"Cookie": other}).status == 401


def test_more_cookies_than_anybody_needs_are_not_read(
    make_server: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading quoted ones takes time that grows with the square of their length."""
    server = make_server(token=TOKEN)
    monkeypatch.setattr(access, "_session", None)
    odd = 'a="' + "\\" * 4096
    for headers in (f"Cookie: {odd}\r\n", f"Cookie: {odd[:2500]}\r\n" * 2):
        raw = f"GET / HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n"
        reply = server.send(raw.encode())
        assert reply.startswith(b"HTTP/1.1 431") and b"at most 4096" in reply


def test_readiness_tells_its_reasons_to_who_has_the_token(
    make_server: Make, log: io.StringIO
) -> None:
    from lloss.serve.daemon.api import health

    server = make_server(token=TOKEN)
    server.app.state.daemon = server.daemon
    server.app.include_router(health.router)
    server.daemon.not_ready = lambda: "/srv/data: the disk is full"
    assert server.ask("GET", "/readyz").error_of("ready") == "not ready"
    assert server.ask("GET", "/v2/health/ready").status == 503
    assert "disk" in server.ask("GET", "/readyz", headers=BEARER).error_of("ready")


def test_the_token_is_compared_in_constant_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr(
        access.hmac, "compare_digest", lambda a, b: bool(compared.append((a, b))) or a == b
    )
    settings = ServeSettings(model=tmp_path / "m", data_dir=tmp_path, token=TOKEN)
    assert Access(settings).is_token(TOKEN.encode())
    assert compared == [(TOKEN.encode(), TOKEN.encode())]


def test_the_document_names_the_token(make_server: Make) -> None:
    schema = {"paths": {"/a": {"get": {"responses": {"422": {"description": "x"}}}}}}
    described = app._complete(schema, make_server(token=TOKEN).daemon)
    assert described["security"] == [{"token": []}]
    replies = described["paths"]["/a"]["get"]["responses"]
    assert set(replies) == {"422", "default"}
