from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from lloss.modeling import weights_cache
from lloss.modeling.weights_cache import WeightsUnavailableError, answers, cached

CONTENT = b"weights" * 1000
NAME = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


class _Hub(BaseHTTPRequestHandler):
    body: ClassVar[bytes] = CONTENT
    size: ClassVar[int] = len(CONTENT)
    requests: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.requests.append(self.path)
        self.send_response(404 if "missing" in self.path else 200)
        self.send_header("Content-Length", str(self.size))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(_Hub, "requests", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_weights_are_downloaded_once_into_the_cache_of_torch(hub: str, tmp_path: Path) -> None:
    path = cached(f"{hub}/models/{NAME}")
    assert path == tmp_path / "checkpoints" / NAME
    assert path.read_bytes() == CONTENT
    assert cached(f"{hub}/models/{NAME}") == path
    assert _Hub.requests == [f"/models/{NAME}"]


def test_a_damaged_file_in_the_cache_is_downloaded_again(hub: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / NAME
    path.parent.mkdir()
    path.write_bytes(CONTENT[:100])
    assert cached(f"{hub}/{NAME}").read_bytes() == CONTENT
    path.write_bytes(CONTENT[:100])
    with pytest.raises(WeightsUnavailableError, match=rf"{NAME} is damaged, and .* 404"):
        cached(f"{hub}/missing/{NAME}")
    assert path.read_bytes() == CONTENT[:100]


@pytest.mark.parametrize(
    ("body", "size", "message"),
    [
        (b"other", 5, r"the file has the hash d9298a10, not"),
        (CONTENT[:500], len(CONTENT), "only 500 of 7000 bytes came"),
    ],
)
def test_what_was_damaged_on_the_way_is_not_kept(
    hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes, size: int, message: str
) -> None:
    monkeypatch.setattr(_Hub, "body", body)
    monkeypatch.setattr(_Hub, "size", size)
    with pytest.raises(WeightsUnavailableError, match=f"from 127.0.0.1:.*{message}") as caught:
        cached(f"{hub}/{NAME}")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_server_that_does_not_answer_is_not_waited_for(
    hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_cache, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(WeightsUnavailableError, match=r"no answer|timed out"):
            cached(f"{url}/{NAME}")
        with pytest.raises(OSError, match=r"no answer|timed out"):
            answers(url)
    assert time.monotonic() - began < 5
    with pytest.raises(WeightsUnavailableError, match="Connection refused"):
        cached(f"{url}/{NAME}")
    answers(f"{hub}/missing")  # even a refusal is an answer


def test_a_cache_that_cannot_be_written_is_named(hub: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(WeightsUnavailableError, match=rf"{tmp_path}.*cannot be written"):
        cached(f"{hub}/{NAME}")
