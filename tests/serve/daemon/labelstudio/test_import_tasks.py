"""Selections as tasks that Label Studio imports."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from lloss.serve.daemon.labelstudio.import_tasks import tasks_of
from lloss.serve.daemon.services.selections import HandedOut, Ranked

from .daemons import Daemon


def handed_out(*ids: str, pool: str = "wild") -> HandedOut:
    images = [Ranked(id, 5.0 - rank, rank + 1) for rank, id in enumerate(ids)]
    return HandedOut("sel1", pool, "ab" * 32, images, time.time() + 60, 5)


def request_to(base: str = "http://127.0.0.1:8000/") -> Any:
    return SimpleNamespace(base_url=base)


def test_tasks_carry_the_image_its_place_and_a_prediction(daemon: Daemon) -> None:
    tasks = tasks_of(daemon, handed_out("4.png", "2.png"), request_to())  # type: ignore[arg-type]
    assert [one["data"]["lloss_id"] for one in tasks] == ["4.png", "2.png"]
    first = tasks[0]
    assert first["data"]["lloss_loss"] == 5 and first["data"]["lloss_pool"] == "wild"
    assert first["data"]["lloss_rank"] == 1 and first["data"]["lloss_selection"] == "sel1"
    (made,) = first["predictions"]
    assert made["model_version"] == "ab" * 6 and made["result"] == []
    assert made["score"] == pytest.approx(1 - 0.9)
    assert made["score"] < tasks[1]["predictions"][0]["score"]
    address = urlsplit(first["data"]["image"])
    assert address.netloc == "127.0.0.1:8000" and address.path == "/v1/pools/wild/images"
    assert parse_qs(address.query)["id"] == ["4.png"]
    json.dumps(tasks)


def test_behind_a_proxy_links_begin_as_the_proxy_does(daemon: Daemon) -> None:
    object.__setattr__(daemon.settings, "public_url", "https://scores.example")
    (one,) = tasks_of(daemon, handed_out("a.png"), request_to())  # type: ignore[arg-type]
    assert one["data"]["image"].startswith("https://scores.example/v1/pools/wild/images?")


def test_an_address_of_ones_own_is_filled_in_safely(daemon: Daemon) -> None:
    object.__setattr__(daemon.settings, "image_url", "https://files/{pool}/{id}?v={x}#{id}")
    odd = "a b/{pool}/../é&?#%.png"
    (one,) = tasks_of(daemon, handed_out(odd, pool="raw"), request_to())  # type: ignore[arg-type]
    quoted = "a%20b%2F%7Bpool%7D%2F..%2F%C3%A9%26%3F%23%25.png"
    assert one["data"]["image"] == f"https://files/raw/{quoted}?v={{x}}#{quoted}"
    assert one["data"]["lloss_id"] == odd and "predictions" not in one
