from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from lloss.serve.daemon.labelstudio.import_tasks import tasks_of
from lloss.serve.daemon.services.hand_out import HandedOut, Ranked
from scipy.stats import percentileofscore

from lloss.errors import ScoresError

from .conftest import SHA256, Daemon


def tasks(daemon: Daemon, *ids: str, pool: str = "wild") -> list[dict[str, Any]]:
    images = [Ranked(id, 5.0 - rank, rank + 1) for rank, id in enumerate(ids)]
    handed = HandedOut("sel1", pool, SHA256, images, time.time() + 60, 5)
    request = SimpleNamespace(base_url="http://127.0.0.1:8000/")
    return tasks_of(cast(Any, daemon), handed, cast(Any, request))


def test_tasks_have_the_image_its_place_and_a_prediction(daemon: Daemon) -> None:
    first, second = tasks(daemon, "4.png", "2.png")
    address = urlsplit(first["data"].pop("image"))
    assert address.netloc == "127.0.0.1:8000" and address.path == "/v1/pools/wild/images"
    assert parse_qs(address.query)["id"] == ["4.png"]
    assert first["data"] == {
        "lloss_pool": "wild", "lloss_id": "4.png", "lloss_loss": 5, "lloss_rank": 1,
        "lloss_selection": "sel1",
    }  # fmt: skip
    assert second["data"]["lloss_id"] == "2.png"
    (made,) = first["predictions"]
    assert made == {"model_version": "ab" * 6, "score": pytest.approx(1 - 0.9), "result": []}
    json.dumps(first)


def test_scores_are_percentile_ranks_in_the_pool(daemon: Daemon) -> None:
    losses = np.random.default_rng(0).normal(size=3_000).round(2).astype(np.float32)
    with_gap = losses.tolist()
    with_gap[7] = float("nan")
    daemon.put("many", with_gap)
    rows = [row for row in np.random.default_rng(1).permutation(3_000)[:1_000] if row != 7]
    made = tasks(daemon, *(f"{row}.png" for row in rows), "7.png", "nowhere.png", pool="many")
    ranks = percentileofscore(np.delete(losses, 7), losses[rows], "mean")
    found = [one["predictions"][0]["score"] for one in made[:-2]]
    np.testing.assert_allclose(found, 1 - ranks / 100, atol=1e-9)
    for unscored in made[-2:]:
        assert "predictions" not in unscored and "lloss_loss" not in unscored["data"]


def test_damaged_scores_are_an_error(daemon: Daemon) -> None:
    (daemon.put("bad", [1, 2]) / "part-00000.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(ScoresError, match="part-00000.parquet"):
        tasks(daemon, "0.png", pool="bad")


def test_links_begin_with_the_public_url(daemon: Daemon) -> None:
    object.__setattr__(daemon.settings, "public_url", "https://scores.example")
    (one,) = tasks(daemon, "a.png")
    assert one["data"]["image"].startswith("https://scores.example/v1/pools/wild/images?")


def test_the_image_url_pattern_is_filled_with_quoted_values(daemon: Daemon) -> None:
    object.__setattr__(daemon.settings, "image_url", "https://files/{pool}/{id}?v={x}#{id}")
    odd = "a b/{pool}/../é&?#%.png"
    (one,) = tasks(daemon, odd)
    quoted = "a%20b%2F%7Bpool%7D%2F..%2F%C3%A9%26%3F%23%25.png"
    assert one["data"]["image"] == f"https://files/wild/{quoted}?v={{x}}#{quoted}"
    assert one["data"]["lloss_id"] == odd
