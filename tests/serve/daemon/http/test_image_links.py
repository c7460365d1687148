"""Signed links: what they open, when they end, and where their key is."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
from lloss.serve.daemon.http import image_links

Make = Callable[..., Any]

TOKEN = "correct-horse-battery-staple"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
IMAGES = "/v1/pools/p/images"


@pytest.mark.parametrize(
    "id", ["a/b.png", "ü €", "a&id=b#?%2f", "", "\u202e", "x\ny", "\ud800"], ids=ascii
)
def test_a_signed_link_opens_one_image_to_other_sites(make_server: Make, id: str) -> None:
    server = make_server(token=TOKEN)
    cross = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    link = f"{IMAGES}?{server.daemon.authentication.links.signed_query('p', id)}"
    reply = server.client().get(link, headers=cross)
    assert reply.status_code == 200
    assert reply.headers["cross-origin-resource-policy"] == "cross-origin"
    assert reply.headers["access-control-allow-origin"] == "*"
    plain = server.client().get(f"{IMAGES}?id=a", headers=BEARER)
    assert "access-control-allow-origin" not in plain.headers


def test_a_signed_link_opens_nothing_else(make_server: Make) -> None:
    server = make_server(token=TOKEN)
    query = server.daemon.authentication.links.signed_query("p", "a")
    parts = {name: values[0] for name, values in parse_qs(query).items()}

    def asked(path: str = IMAGES, method: str = "GET", **changed: str) -> int:
        return server.status(f"{path}?{urlencode({**parts, **changed})}", method)

    assert asked() == 200
    assert asked(id="b") == 401
    assert asked(sig="0" * 64) == asked(sig="") == asked(sig="é") == 401
    assert asked(expires=str(int(parts["expires"]) + 86400)) == asked(expires="x") == 401
    assert asked(path="/v1/pools/q/images") == asked(path="/metrics") == asked(path="/") == 401
    assert asked(method="POST") == asked(method="DELETE") == 401
    for more in ("id=b", "sig=0", "expires=9"):
        assert server.status(f"{IMAGES}?{query}&{more}") == 401
        assert server.status(f"{IMAGES}?{more}&{query}") == 401


def test_a_link_expires(make_server: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    server, now = make_server(token=TOKEN), time.time()
    links = server.daemon.authentication.links
    link = f"{IMAGES}?{links.signed_query('p', 'a', seconds=3600)}"
    assert link == f"{IMAGES}?{links.signed_query('p', 'a', seconds=3600)}"
    monkeypatch.setattr(image_links.time, "time", lambda: now + 3500)
    assert server.status(link) == 200
    monkeypatch.setattr(image_links.time, "time", lambda: now + 3600 + 86400)
    assert server.status(link) == 401


def test_links_survive_restarts_and_end_with_their_secret(
    make_server: Make, tmp_path: Path
) -> None:
    first = make_server(token=TOKEN)
    link = f"{IMAGES}?{first.daemon.authentication.links.signed_query('p', 'a')}"
    assert make_server(token=TOKEN).status(link) == 200
    key = tmp_path / "data" / "secret.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.unlink()
    assert make_server(token=TOKEN).status(link) == 401
