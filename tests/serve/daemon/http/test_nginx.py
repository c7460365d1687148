"""The nginx example: it parses, has the daemon's limits, and keeps slow clients from it."""

from __future__ import annotations

import getpass
import http.client
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lloss.serve.daemon.http.middleware import HEAD_BYTES
from lloss.serve.daemon.settings import Limits

from ..waiting import PATIENCE, until

CONFIG = (Path(__file__).parents[4] / "serve/deploy/nginx.conf").read_text()
UNITS = {"": 1, "s": 1, "k": 1 << 10, "m": 1 << 20}


def directive(name: str) -> list[int]:
    """The numbers of a directive, in bytes or seconds."""
    (values,) = re.findall(rf"^ *{name} ([^;]+);", CONFIG, re.MULTILINE)
    return [int(n) * UNITS[unit] for n, unit in re.findall(r"(?<!\S)(\d+)([smk]?)(?!\S)", values)]


def test_its_limits_are_the_daemons() -> None:
    limits = Limits()
    assert directive("client_max_body_size") == [limits.body_bytes]
    assert directive("client_body_timeout") == [limits.body_seconds]
    count, size = directive("large_client_header_buffers")
    assert count * size == HEAD_BYTES
    assert directive("proxy_read_timeout")[0] > limits.request_seconds
    assert directive("limit_conn all")[0] <= limits.connections
    assert directive("worker_connections")[0] >= 2 * directive("limit_conn all")[0]


@pytest.fixture
def proxied(make_server: Callable[..., Any], tmp_path: Path) -> Iterator[int]:
    """The port of a real nginx, without TLS, in front of the middleware."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        pytest.skip("nginx is not installed; nginx-light has it")
    server = make_server(public_url="https://scores.example")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = re.sub(r" *ssl_certificate.*\n", "", CONFIG)
    for old, new in {
        "listen 443 ssl": f"listen 127.0.0.1:{port}",
        "127.0.0.1:8000": f"127.0.0.1:{server.port}",
        "client_header_timeout 10s": "client_header_timeout 1s",
        "/run/nginx-lloss.pid": f"{tmp_path}/pid",
        "/var/log/nginx/lloss.log": f"{tmp_path}/log",
        "access_log off;": "access_log off;"
        + "".join(
            f" {kind}_temp_path {tmp_path}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        ),
    }.items():
        assert old in config
        config = config.replace(old, new)
    path = tmp_path / "nginx.conf"
    path.write_text(config)
    command = [nginx, "-c", str(path), "-g", f"daemon off; user {getpass.getuser()};"]
    done = subprocess.run([*command[:3], "-t"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def listens() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    until(listens)
    yield port
    process.terminate()
    process.wait(PATIENCE)


def test_a_real_nginx_passes_requests_and_refuses_abuse(proxied: int) -> None:
    def ask(method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", proxied, timeout=PATIENCE)
        connection.request(method, path, body, {"Host": "scores.example", **headers})
        reply = connection.getresponse()
        return reply.status, reply.read()

    with socket.create_connection(("127.0.0.1", proxied), timeout=PATIENCE) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: scores.example\r\nX-Slow: ")
        large = bytes(1 << 20)
        assert ask("POST", "/echo", large, Origin="https://scores.example") == (200, large)
        assert ask("POST", "/echo", b"a", Origin="https://evil.example")[0] == 403
        assert ask("GET", "/", X="a" * 20_000)[0] == 400
        assert ask("POST", "/echo", **{"Content-Length": str(65 << 20)})[0] == 413
        reply = slow.recv(1 << 16)
        assert not reply or reply.startswith(b"HTTP/1.1 408")
